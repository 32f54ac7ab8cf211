/**
 * FP8 weights against what config.json says of them: engines believe the config, and load noise where it is wrong.
 * `check` and `verify` ask the same rules.
 */

import { moduleOf, type RangeReader, readScales, type ScaleTable } from "../checkpoint/scales.ts";
import type { Checkpoint, Tensor } from "../core/checkpoint.ts";
import { countOf, isFloat, isFp8, RECASTS } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import type { Severity } from "../core/finding.ts";
import { canonicalJson } from "../core/hash.ts";
import { isJsonObject } from "../core/json.ts";
import { oddHead } from "./fields.ts";
import { type Patterns, patternsOver } from "./module-patterns.ts";
import { type Group, groupsFor, isIgnored, OWN_E5M2, type Scheme, schemeOf } from "./scheme.ts";

export interface QuantizationFault {
  /** stable: scripts look for it */
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

/** Names alone are looked at; nothing is read. */
export function quantizationFaults(
  { config, tensors }: Pick<Checkpoint, "config" | "tensors">,
  scales: ScaleTable,
): readonly QuantizationFault[] {
  const said = config.quantization_config;
  const fp8 = tensors.filter(({ dtype, name }) => isFp8(dtype) && !scales.scaleTensors.has(name));
  if (said === undefined || said === null) {
    if (fp8.length === 0) return [];
    const message = `${fp8.length} weights are FP8, but nothing declares it in quantization_config or hf_quant_config.json: engines take codes for weights`;
    return [fault("quantization-undeclared", "error", message, fp8[0]!.name)];
  }
  if (!isJsonObject(said))
    return [fault("quantization-invalid", "error", "quantization_config is no object")];
  if (fp8.length === 0) {
    return [fault("quantization-absent", "error", "it declares a quantisation, but no weight is FP8")];
  }
  const scheme = schemeOf(said);
  if (scheme === null) {
    const message = "its list of modules left alone, or of those that a group names, is no list of names";
    return [fault("quantization-invalid", "error", message)];
  }
  const projection = /^(compressed-tensors|modelopt)$/.test(scheme.method ?? "") ? LINEAR_OR_HEAD : LINEAR;
  const linear = tensors.filter(
    ({ dtype, name, shape }) => !isFp8(dtype) && projection.test(name) && shape.length === 2,
  );
  const patterns = patternsOver([...fp8, ...linear].map(({ name }) => moduleOf(name)));
  const faults = [
    ...methodFaults(scheme, said.format === OWN_E5M2),
    ...(scheme.method === "compressed-tensors" ? fieldFaults(scheme, oddHead(said)) : []),
    ...fp8.flatMap((tensor) => weightFaults(tensor, scheme, patterns, scales)),
    ...linear.flatMap((tensor) => plainFaults(tensor, scheme, patterns)),
  ];
  if (patterns.untried.size === 0) return faults;
  // what an untried expression hits is not known, so nothing can be said of modules
  const message = `${patterns.untried.size} regular expressions could not be tried: ${[...patterns.untried].join(" ")}`;
  return [
    ...faults.filter(({ rule }) => rule !== "quantization-contradiction"),
    fault("quantization-unchecked", "note", message),
  ];
}

/** Linear modules by their names; the two methods also quantise a head that they are not told to leave alone. */
const LINEAR = /_proj\.weight$/;
const LINEAR_OR_HEAD = /(_proj|^lm_head)\.weight$/;

/** What compressed-tensors says of all modules. */
function fieldFaults({ unknown }: Scheme, odd: readonly string[]): readonly QuantizationFault[] {
  const faults = odd.map((field) =>
    fault("quantization-field", "error", `its ${field}: engines read no plain codes and scales under it`),
  );
  if (unknown.length === 0) return faults;
  const message = `it has keys that are not known: ${unknown.join(", ")}`;
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
    return error(`${named}: ModelOpt's engines choose by it how to read weights, which are FP8`);
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
    return [contradiction("it is FP8, but the config lists its module as left alone", name)];
  }
  const [group, ...others] = groupsFor(scheme, module, patterns);
  if (group === undefined) {
    // a config without any group is told once
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
    found.push("two groups of the config name its module and say unlike things of it");
  if ((bits !== null && bits !== 8) || (type !== null && type !== "float"))
    found.push(`it is ${dtype}, but the config says ${bits ?? 8} bits of type ${type ?? "float"}`);
  if (dtype === "F8_E5M2" && scheme.method !== null)
    found.push("it is F8_E5M2, and eight bits of float mean F8_E4M3 to engines");
  const scale = scaleOf.get(name);
  if (scale?.tensor.endsWith("_scale_inv") === true && SCALE_ALONE.includes(scheme.method ?? ""))
    found.push(`its scale is stored as ${scale.tensor}, which engines of ${scheme.method} do not read`);
  const axis = scale?.axis;
  if (axis !== undefined && (shape[0] ?? 1) > 1) {
    const stored = axis === "all" ? "tensor" : "channel";
    if (strategy !== null && strategy !== stored)
      found.push(`it has one scale a ${stored}, but the config says one a ${strategy}`);
  }
  return [...found.map((message) => contradiction(message, name)), ...inputFaults(name, group, scaleTensors)];
}

/** Methods that know a scale as `weight_scale`; `weight_scale_inv` is a name of `fp8`. */
const SCALE_ALONE = ["compressed-tensors", "modelopt", "fbgemm_fp8"];

const EXPERT = /\.experts\.\d+\./;

/** Scales of activations: stored where they are static, and nowhere else. */
function inputFaults(
  name: string,
  { activations }: Group,
  companions: ScaleTable["scaleTensors"],
): readonly QuantizationFault[] {
  if (activations === null) return [];
  const stored = INPUTS.map((ending) => moduleOf(name) + ending).find((input) => companions.has(input));
  if (activations === "static" && stored === undefined) {
    // engines take the largest scale among a layer's experts, so that one which calibration never reached needs none
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

/** A linear weight that is not FP8 must be left alone, or engines look for its scale. */
function plainFaults(
  { name, dtype }: Tensor,
  scheme: Scheme,
  patterns: Patterns,
): readonly QuantizationFault[] {
  const module = moduleOf(name);
  if (isIgnored(scheme, module, patterns) || groupsFor(scheme, module, patterns).length === 0) return [];
  const message = `it is ${dtype}, but the config does not list its module as left alone: engines expect a scale`;
  return [contradiction(message, name)];
}

/**
 * Real = code * scale, and the largest code of E4M3 is 448. A weight's largest value lies between 1e-8 and 1e4 in any
 * model; that of the activations of a layer, which a norm, a gate or a square made, between 1e-5 and 1e7.
 */
const USUAL = {
  weight: { least: 1e-10, most: 100, severity: "warning" },
  activation: { least: 1e-8, most: 1e5, severity: "error" },
} as const;

/**
 * Reads the scales themselves: a few bytes a tensor. An odd scale of a weight is a warning, since `verify` holds it to the
 * weight. Nothing else holds one of activations, and where it is absurd, all that passes is 0 or the largest code.
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

/** The type that the config names, in which engines compute, against that of most weights that are not FP8. */
export function dtypeFaults({
  config,
  tensors,
}: Pick<Checkpoint, "config" | "tensors">): readonly QuantizationFault[] {
  const said = config.dtype ?? config.torch_dtype;
  if (typeof said !== "string") return [];
  const elements = new Map<string, number>();
  for (const { dtype, shape } of tensors) {
    if (isFloat(dtype) && !isFp8(dtype)) elements.set(dtype, (elements.get(dtype) ?? 0) + countOf(shape));
  }
  const [most] = [...elements].sort(([, a], [, b]) => b - a);
  const name = said.replace(/^torch\./, "");
  const named = Object.values(RECASTS).find(({ torch }) => torch === name);
  if (most === undefined || named?.dtype === most[0]) return [];
  const message = `it says ${said}, and most weights are ${most[0]}: engines compute in another type`;
  return [fault("dtype-contradiction", "warning", message)];
}
