/** vLLM. Sources: `modelopt.py`, `fp8.py`, `compressed_tensors.py`, `quant_utils.py`, `weight_utils.py`. */
import { isJsonObject } from "../../core/json.ts";
import { EXPERT_STACK, joinedIn } from "../fused-modules.ts";
import type { Engine, EngineLimit } from "./engine.ts";
import type { QuantizedFolder, StoredModule } from "./folder.ts";
import { headLimits, quantisedModules, scaleNameLimits } from "./limits.ts";
import { equalNames, equalOrExpression, substringOrPattern } from "./matching.ts";

const fp8 = {
  lists: ["ignored_layers", "modules_to_not_convert"],
  findEntry: equalNames,
  rule: "compares whole names (fp8.py; https://github.com/vllm-project/vllm/pull/44628)",
  head: false,
} as const;

export const vllm: Engine = {
  id: "vllm",
  name: "vLLM",
  files: ["config.json", "hf_quant_config.json"],
  methods: {
    "compressed-tensors": {
      lists: ["ignore"],
      findEntry: equalOrExpression,
      rule: "compares whole names, and tries `re:` from the start (compressed_tensors/utils.py; https://github.com/vllm-project/vllm/issues/28072)",
      head: false,
    },
    modelopt: {
      lists: ["ignore"],
      findEntry: substringOrPattern,
      rule: "takes an entry for a part of the name or a pattern (modelopt.py; https://github.com/vllm-project/vllm/pull/25706)",
      head: true,
    },
    fp8,
    mxfp8: fp8,
  },
  limits: (folder) => [
    ...(folder.scheme.method === "modelopt" ? [] : quantisedHeadLimits(folder)),
    ...scaleNameLimits(folder, (name) => name.endsWith("_scale"), {
      message:
        "reads one scale a tensor as weight_scale, not weight_scale_inv; Transformers reads weight_scale_inv (https://github.com/sgl-project/sglang/pull/30234)",
    }),
    ...fusedLimits(folder),
    ...cacheLimits(folder),
    ...blockLimits(folder),
    ...stackLimits(folder),
  ],
};

function quantisedHeadLimits(folder: QuantizedFolder): readonly EngineLimit[] {
  const message =
    "does not quantise a head: it takes the codes of the head for values (compressed_tensors.py and fp8.py at be696453)";
  return [
    ...headLimits(folder, false, { severity: "warning", message }),
    // a folder with such a target is meant for other engines
    ...headLimits(folder, true, { severity: "note", message }),
  ];
}

function fusedLimits({ modules }: QuantizedFolder): readonly EngineLimit[] {
  const groups = new Map<string, StoredModule[]>();
  for (const module of modules) {
    const name = joinedIn(module.name)?.name;
    if (name !== undefined) groups.set(name, [...(groups.get(name) ?? []), module]);
  }
  return [...groups].flatMap(([name, parts]): readonly EngineLimit[] => {
    const encodings = new Set(parts.map(({ encoding }) => encoding));
    if (encodings.size < 2) return [];
    const plain = parts.find(({ encoding }) => encoding === null) ?? parts[0]!;
    const others = parts.filter(({ encoding }) => encoding !== plain.encoding);
    const message = `fuses ${joinedIn(plain.name)!.parts} and refuses parts that are stored differently: ${lastOf(plain)} of ${name} is ${plain.encoding ?? plain.weight.dtype}, beside ${others.length} parts in ${others[0]!.encoding ?? others[0]!.weight.dtype} (should_ignore_layer in compressed_tensors/utils.py)`;
    return [{ rule: "engine-fused", severity: "warning", message, tensor: plain.weight.name }];
  });
}

const lastOf = ({ name }: StoredModule) => /experts\.(.*)$/.exec(name)?.[1] ?? name.split(".").at(-1)!;

/** Of compressed-tensors: one symmetric scale for the cache of a layer. */
function cacheLimits({ scheme, record }: QuantizedFolder): readonly EngineLimit[] {
  const cache = record.kv_cache_scheme;
  if (scheme.method !== "compressed-tensors" || !isJsonObject(cache)) return [];
  if (cache.strategy === "tensor" && cache.symmetric === true) return [];
  const message =
    "reads a kv_cache_scheme with strategy tensor and symmetric true alone (compressed_tensors.py)";
  return [{ rule: "engine-cache", severity: "note", message, tensor: null }];
}

/** Experts in one tensor: vLLM cuts the scales as it cuts the experts. */
function stackLimits(folder: QuantizedFolder): readonly EngineLimit[] {
  const found = quantisedModules(folder).find(
    ({ name, extent }) => EXPERT_STACK.test(name) && extent === "tensor",
  );
  if (found === undefined) return [];
  const message =
    "reads a scale for each row of each expert where all experts are one tensor, and here is one scale (granitemoehybrid.py)";
  return [{ rule: "engine-experts", severity: "warning", message, tensor: found.weight.name }];
}

/** ModelOpt's blocks must divide the weight. */
function blockLimits(folder: QuantizedFolder): readonly EngineLimit[] {
  if (folder.scheme.method !== "modelopt") return [];
  const ragged = quantisedModules(folder).find(({ groups, weight }) =>
    groups.some(({ strategy }) => strategy === "block" && weight.shape.some((size) => size % 128 !== 0)),
  );
  if (ragged === undefined) return [];
  const message = `reads blocks of 128 x 128 alone, and [${ragged.weight.shape.join(", ")}] is not a multiple of them (FP8_PB_WO in modelopt.py)`;
  return [{ rule: "engine-block", severity: "note", message, tensor: ragged.weight.name }];
}
