/**
 * Compares FP8 weights with their description in config.json. Engines trust the config, and load noise if it is wrong.
 * `check` and `verify` use the same rules.
 */

import { moduleOf } from "../checkpoint/scales/names.ts";
import type { ScaleTable } from "../checkpoint/scales/pair.ts";
import { type RangeReader, readScales } from "../checkpoint/scales/values.ts";
import type { Checkpoint, Tensor } from "../core/checkpoint.ts";
import { countOf, isFloat, isFp8, RECASTS } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import type { Severity } from "../core/finding.ts";
import { canonicalJson } from "../core/hash.ts";
import { isJsonObject } from "../core/json.ts";
import { oddHead } from "./fields.ts";
import { createPatterns, type Patterns } from "./module-patterns.ts";
import { type Group, groupsFor, isIgnored, OWN_E5M2, type Scheme, schemeOf } from "./scheme.ts";

export interface QuantizationFault {
  /** stable, because scripts search for it */
  readonly rule: string;
  readonly severity: Severity;
  readonly message: string;
  readonly tensor: string | null;
}

const fault = (
  rule: string,
  severity: Severity,
  message: string,
  tensor: string | null = null,
): QuantizationFault => ({
  rule,
  severity,
  message,
  tensor,
});
const contradiction = (message: string, tensor: string) =>
  fault("quantization-contradiction", "error", message, tensor);

/** Faults that names and types show; no weight is read. */
export function quantizationFaults(
  { config, tensors }: Pick<Checkpoint, "config" | "tensors">,
  scales: ScaleTable,
): readonly QuantizationFault[] {
  const record = config.quantization_config;
  const fp8 = tensors.filter(({ dtype, name }) => isFp8(dtype) && !scales.scaleTensors.has(name));
  if (record === undefined || record === null) {
    if (fp8.length === 0) return [];
    const message = `${fp8.length} weights are FP8, but neither quantization_config nor hf_quant_config.json declares it: engines take codes for weights`;
    return [fault("quantization-undeclared", "error", message, fp8[0]!.name)];
  }
  if (!isJsonObject(record))
    return [fault("quantization-invalid", "error", "quantization_config is not an object")];
  if (fp8.length === 0) {
    return [fault("quantization-absent", "error", "it declares a quantisation, but no weight is FP8")];
  }
  const scheme = schemeOf(record);
  if (scheme === null) {
    const message = "its list of ignored modules, or the list of a group, is not a list of names";
    return [fault("quantization-invalid", "error", message)];
  }
  const projection = /^(compressed-tensors|modelopt)$/.test(scheme.method ?? "") ? LINEAR_OR_HEAD : LINEAR;
  const linear = tensors.filter(
    ({ dtype, name, shape }) => !isFp8(dtype) && projection.test(name) && shape.length === 2,
  );
  const patterns = createPatterns([...fp8, ...linear].map(({ name }) => moduleOf(name)));
  const faults = [
    ...methodFaults(scheme, record.format === OWN_E5M2),
    ...(scheme.method === "compressed-tensors" ? fieldFaults(scheme, oddHead(record)) : []),
    ...fp8.flatMap((tensor) => weightFaults(tensor, scheme, patterns, scales)),
    ...linear.flatMap((tensor) => plainFaults(tensor, scheme, patterns)),
  ];
  if (patterns.untried.size === 0) return faults;
  // The modules of such an expression are unknown, so contradictions cannot be judged.
  const message = `${patterns.untried.size} regular expressions could not be tried: ${[...patterns.untried].join(" ")}`;
  return [
    ...faults.filter(({ rule }) => rule !== "quantization-contradiction"),
    fault("quantization-unchecked", "note", message),
  ];
}

/** Names of linear modules. The two methods quantise the head too, unless it is ignored. */
const LINEAR = /_proj\.weight$/;
const LINEAR_OR_HEAD = /(_proj|^lm_head)\.weight$/;

/** Faults in the fields of compressed-tensors for all modules. */
function fieldFaults({ unknown }: Scheme, odd: readonly string[]): readonly QuantizationFault[] {
  const faults = odd.map((field) =>
    fault(
      "quantization-field",
      "error",
      `its ${field}: with this, engines do not read plain codes and scales`,
    ),
  );
  if (unknown.length === 0) return faults;
  const message = `it has unknown keys: ${unknown.join(", ")}`;
  return [...faults, fault("quantization-key-unknown", "warning", message)];
}

/** Methods whose engines read FP8 weights with their scales. */
const METHODS = ["compressed-tensors", "modelopt", "fp8", "fbgemm_fp8", "quark"];

/** Algorithms of ModelOpt under which weights are FP8. */
const ALGORITHMS = /^(FP8|MXFP8|W4A8|MIXED_PRECISION)/i;

function methodFaults({ method, algorithm, groups }: Scheme, ownE5m2: boolean): readonly QuantizationFault[] {
  const error = (message: string) => [fault("quantization-method", "error", message)];
  if (ownE5m2 && method === null) return [];
  if (method === null) return error("it names no quant_method: engines refuse it");
  if (!METHODS.includes(method)) {
    return error(
      `its quant_method is ${JSON.stringify(method)}, and the weights are FP8 as ${METHODS.join(", ")} store it`,
    );
  }
  if (method === "modelopt" && (algorithm === null || !ALGORITHMS.test(algorithm))) {
    const named =
      algorithm === null ? "it names no quant_algo" : `its quant_algo is ${JSON.stringify(algorithm)}`;
    return error(`${named}: engines use it to choose how to read weights, and these are FP8`);
  }
  return groups.length > 0 ? [] : error("it names no group of modules: engines take codes for weights");
}

function weightFaults(
  { name, dtype, shape }: Tensor,
  scheme: Scheme,
  patterns: Patterns,
  { scaleOf, scaleTensors }: ScaleTable,
): readonly QuantizationFault[] {
  const module = moduleOf(name);
  if (isIgnored(scheme, module, patterns)) {
    return [contradiction("it is FP8, but the config lists its module as ignored", name)];
  }
  const [group, ...others] = groupsFor(scheme, module, patterns);
  if (group === undefined) {
    // a config without any group is one finding, not one for each weight
    const unnamed = contradiction("it is FP8, but no group of the config names its module", name);
    return scheme.groups.length === 0 ? [] : [unnamed];
  }
  const { bits, type, strategy } = group;
  const found = group.odd.map((field) => `it is FP8, but the config's ${field}`);
  if (
    others.some(
      (other) => canonicalJson({ ...other, targets: null }) !== canonicalJson({ ...group, targets: null }),
    )
  )
    found.push("two groups of the config name its module and describe it differently");
  if ((bits !== null && bits !== 8) || (type !== null && type !== "float"))
    found.push(`it is ${dtype}, but the config says ${bits ?? 8} bits of type ${type ?? "float"}`);
  if (dtype === "F8_E5M2" && scheme.method !== null)
    found.push("it is F8_E5M2, but engines take eight bits of float for F8_E4M3");
  const scale = scaleOf.get(name);
  if (scale?.tensor.endsWith("_scale_inv") === true && SCALE_ALONE.includes(scheme.method ?? ""))
    found.push(`its scale is stored as ${scale.tensor}, which engines of ${scheme.method} do not read`);
  const extent = scale?.extent;
  if (extent !== undefined && (shape[0] ?? 1) > 1) {
    const stored = extent === "row" ? "channel" : extent;
    if (strategy !== null && strategy !== stored)
      found.push(`it has one scale per ${stored}, but the config says one per ${strategy}`);
  }
  return [...found.map((message) => contradiction(message, name)), ...inputFaults(name, group, scaleTensors)];
}

/** Methods whose scales are named `weight_scale`; `weight_scale_inv` belongs to the method `fp8`. */
const SCALE_ALONE = ["compressed-tensors", "modelopt", "fbgemm_fp8"];

const EXPERT = /\.experts\.\d+\./;

/** Scales of activations must be stored if activations are static, and only then. */
function inputFaults(
  name: string,
  { activations }: Group,
  companions: ScaleTable["scaleTensors"],
): readonly QuantizationFault[] {
  if (activations === null) return [];
  const stored = INPUTS.map((ending) => moduleOf(name) + ending).find((input) => companions.has(input));
  if (activations === "static" && stored === undefined) {
    // Engines use the largest scale among the experts of a layer, so an expert that calibration never reached needs none.
    const severity = EXPERT.test(name) ? "warning" : "error";
    const message =
      "the config says static activations, but it has no input_scale: engines multiply by noise";
    return [fault("activation-scale-missing", severity, message, name)];
  }
  if (activations === "static" || stored === undefined) return [];
  const message = `${stored} is stored, but the config declares no static activations: engines know no such parameter`;
  return [fault("activation-scale-undeclared", "error", message, stored)];
}

const INPUTS = [".input_scale", ".activation_scale"] as const;

/** A linear weight that is not FP8 must be ignored, or engines look for its scale. */
function plainFaults(
  { name, dtype }: Tensor,
  scheme: Scheme,
  patterns: Patterns,
): readonly QuantizationFault[] {
  const module = moduleOf(name);
  if (isIgnored(scheme, module, patterns) || groupsFor(scheme, module, patterns).length === 0) return [];
  const message = `it is ${dtype}, but the config does not list its module as ignored: engines expect a scale`;
  return [contradiction(message, name)];
}

/**
 * Usual scales. Real value = code * scale, and the largest code of E4M3 is 448. In any model, the largest value of a weight
 * is between 1e-8 and 1e4; that of activations, after a norm, a gate or a square, is between 1e-5 and 1e7.
 */
const USUAL = {
  weight: { least: 1e-10, most: 100, severity: "warning" },
  activation: { least: 1e-8, most: 1e5, severity: "error" },
} as const;

/**
 * Reads the scales, a few bytes for each tensor. An unusual scale of a weight is a warning, because `verify` compares it
 * with the weight. An unusual scale of activations is an error: nothing else checks it, and all activations would become 0
 * or the largest code.
 */
export async function scaleFaults(
  { tensors }: Pick<Checkpoint, "tensors">,
  { scaleOf, unusedScales }: Pick<ScaleTable, "scaleOf" | "unusedScales">,
  files: RangeReader,
): Promise<readonly QuantizationFault[]> {
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const weights = [...scaleOf.values()].map(({ tensor }) => [tensor, USUAL.weight] as const);
  const faults: QuantizationFault[] = [];
  for (const [name, usual] of [
    ...weights,
    ...unusedScales.map((name) => [name, USUAL.activation] as const),
  ]) {
    const found = await scaleFault(byName.get(name)!, usual, files);
    if (found !== null) faults.push(found);
  }
  return faults;
}

async function scaleFault(
  tensor: Tensor,
  { least, most, severity }: (typeof USUAL)["weight" | "activation"],
  files: RangeReader,
): Promise<QuantizationFault | null> {
  const { name } = tensor;
  try {
    const odd = (await readScales(tensor, files)).find((scale) => scale < least || scale > most);
    return odd === undefined ? null : fault("scale-range", severity, `a scale of ${odd} is unusual`, name);
  } catch (error) {
    if (!(error instanceof IsologitError) || error.exit !== 3) throw error;
    return fault("scale-range", "error", error.message, name);
  }
}

/** Compares the type in the config, in which engines compute, with that of most weights that are not FP8. */
export function dtypeFaults({
  config,
  tensors,
}: Pick<Checkpoint, "config" | "tensors">): readonly QuantizationFault[] {
  const configured = config.dtype ?? config.torch_dtype;
  if (typeof configured !== "string") return [];
  const elements = new Map<string, number>();
  for (const { dtype, shape } of tensors) {
    if (isFloat(dtype) && !isFp8(dtype)) elements.set(dtype, (elements.get(dtype) ?? 0) + countOf(shape));
  }
  const [most] = [...elements].sort(([, a], [, b]) => b - a);
  const name = configured.replace(/^torch\./, "");
  const named = Object.values(RECASTS).find(({ torch }) => torch === name);
  if (most === undefined || named?.dtype === most[0]) return [];
  const message = `it says ${configured}, and most weights are ${most[0]}: engines compute in another type`;
  return [fault("dtype-contradiction", "warning", message)];
}
