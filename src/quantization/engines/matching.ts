/**
 * How engines decide which modules an entry of the list in a `quantization_config` leaves as they are. Sources: vLLM's
 * `modelopt.py`, `fp8.py` and `compressed_tensors/utils.py`; TensorRT-LLM's `QuantConfig`; SGLang's `modelopt_quant.py`;
 * Transformers' `should_convert_module`.
 */
import { containsInOrder, namesMatching } from "../module-patterns.ts";

interface MatchingRule {
  readonly engine: "vllm" | "sglang" | "trtllm" | "transformers";
  /** value of `quant_method` */
  readonly method: string;
  /** the modules, given by their whole names, that an entry hits */
  hits(entry: string, modules: readonly string[]): readonly string[];
}

type Hits = MatchingRule["hits"];

/** A rule that looks at one module at a time. */
const each =
  (test: (entry: string, module: string) => boolean): Hits =>
  (entry, modules) =>
    modules.filter((module) => test(entry, module));

/** vLLM and SGLang give the modules of Nemotron-H other names than the tensors have. */
const loadedName = (name: string) => name.replace(/^backbone(?=\.|$)/, "model");

const isGlob = (entry: string, name: string) =>
  entry.includes("*") && containsInOrder(entry.split("*"), name);

/** `x*` also means `x` and `x.*`; an entry also hits every name that contains it. */
const vllmModelOpt = each((given, stored) => {
  const [entry, module] = [loadedName(given), loadedName(stored)];
  const stem = entry.slice(0, -1);
  const entries = entry.endsWith("*") && !entry.endsWith(".*") ? [stem, `${stem}.*`] : [entry];
  return entries.some((pattern) => module.includes(pattern) || isGlob(pattern, module));
});

const contains = each((entry, module) => module.includes(entry));
const equals = each((entry, module) => loadedName(entry) === loadedName(module));

/** An entry hits a module, or any module that contains it. */
const trtLlm = each((entry, module) => {
  const parts = module.split(".");
  const names = parts.map((_, i) => parts.slice(0, i + 1).join("."));
  const entries = entry.endsWith(".*") ? [entry, entry.slice(0, -2)] : [entry];
  return entries.some((pattern) => names.some((name) => name === pattern || isGlob(pattern, name)));
});

const EXPRESSION = "re:";

const compressed: Hits = (entry, modules) => {
  if (!entry.startsWith(EXPRESSION)) return equals(entry, modules);
  const found = namesMatching(entry.slice(EXPRESSION.length), modules.map(loadedName));
  return found === null ? [] : modules.filter((module) => found.has(loadedName(module)));
};

/** Every entry is an expression for the beginning of a name, or an ending of a name. */
const transformersFp8: Hits = (entry, modules) => {
  const found = namesMatching(entry, modules);
  return modules.filter((module) => module.endsWith(entry) || found?.has(module) === true);
};

export const MATCHING_RULES: readonly MatchingRule[] = [
  { engine: "vllm", method: "modelopt", hits: vllmModelOpt },
  { engine: "sglang", method: "modelopt", hits: contains },
  { engine: "trtllm", method: "modelopt", hits: trtLlm },
  { engine: "vllm", method: "fp8", hits: equals },
  { engine: "sglang", method: "fp8", hits: equals },
  { engine: "transformers", method: "fp8", hits: transformersFp8 },
  { engine: "vllm", method: "compressed-tensors", hits: compressed },
  { engine: "sglang", method: "compressed-tensors", hits: compressed },
  { engine: "transformers", method: "compressed-tensors", hits: compressed },
];
