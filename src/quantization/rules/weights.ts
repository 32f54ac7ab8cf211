/** Faults of quantised weights that a config describes otherwise than they are stored. */
import { canonicalJson } from "../../core/hash.ts";
import type { EngineId } from "../engines/engine.ts";
import type { QuantizedFolder, StoredModule } from "../engines/folder.ts";
import type { Group } from "../groups.ts";
import { fault, type UnjudgedFault } from "./fault.ts";

/** @param engines those that read the declaration */
export function weightFaults(
  module: StoredModule,
  folder: QuantizedFolder,
  engines: readonly EngineId[],
): readonly UnjudgedFault[] {
  const { weight, groups } = module;
  const { scheme } = folder;
  const contradiction = (message: string) =>
    fault("quantization-contradiction", "error", message, { tensor: weight.name });
  const [group, ...others] = groups;
  if (group === undefined) {
    // a config without any group is one finding, not one for each weight
    if (scheme.groups.length === 0) return [];
    return [contradiction(`it is ${module.encoding}, but no group of the config names its module`)];
  }
  const isUnlike = (other: Group) =>
    canonicalJson({ ...other, targets: null }) !== canonicalJson({ ...group, targets: null });
  const found = [
    ...group.odd.map((field) => `it is ${module.encoding}, but the config's ${field}`),
    ...(others.some(isUnlike)
      ? ["two groups of the config name its module and describe it differently"]
      : []),
    ...encodingFaults(module, group, scheme.method),
    ...scaleNameFaults(module, group, scheme.method),
    ...extentFaults(module, group),
  ];
  return [
    ...found.map(contradiction),
    ...moduleKindFaults(module),
    ...activationFaults(module, group, folder, engines),
  ];
}

/** Endings of modules that are no linear modules. */
const NOT_LINEAR = /(^|\.)(conv1d|embeddings?|embed_tokens|norm\w*|gate|A_log|D|dt_bias)$/;

/** vLLM's Nemotron-H runs convolutions, embeddings and norms without a method of quantisation, and so do the others. */
function moduleKindFaults({ name, weight, encoding }: StoredModule): readonly UnjudgedFault[] {
  const kind = NOT_LINEAR.exec(name)?.[2];
  if (kind === undefined) return [];
  const message = `it is ${encoding}, and no engine runs ${kind} so: engines take its codes for values (vLLM's nemotron_h.py; https://github.com/NVIDIA/TensorRT-LLM/pull/18607)`;
  return [fault("quantization-module", "error", message, { tensor: weight.name })];
}

function encodingFaults(
  { weight: { dtype }, encoding }: StoredModule,
  { encoding: declared, bits, type }: Group,
  method: string | null,
): readonly string[] {
  const isE5m2 = dtype === "F8_E5M2" && method !== null;
  return [
    ...(declared !== null && declared !== encoding
      ? [`it is ${encoding}, but the config says ${declared}`]
      : []),
    ...(declared === null && ((bits !== null && bits !== 8) || (type !== null && type !== "float"))
      ? [`it is ${dtype}, but the config says ${bits ?? 8} bits of type ${type ?? "float"}`]
      : []),
    ...(isE5m2 ? ["it is F8_E5M2, but engines take eight bits of float for F8_E4M3"] : []),
  ];
}

/** Methods whose scales are named `weight_scale`; `weight_scale_inv` belongs to the method `fp8`. */
const SCALE_ALONE = ["compressed-tensors", "modelopt", "fbgemm_fp8"];

function scaleNameFaults(
  { scale, encoding, extent }: StoredModule,
  { strategy }: Group,
  method: string | null,
): readonly string[] {
  if (scale === undefined) return [];
  if (scale.name.endsWith("_scale_inv"))
    return SCALE_ALONE.includes(method ?? "")
      ? [`its scale is stored as ${scale.name}, which engines of ${method} do not read`]
      : [];
  return method === "fp8" && encoding === "FP8" && strategy === "block" && extent === "block"
    ? [`its scales of blocks are stored as ${scale.name}: engines of fp8 read weight_scale_inv for blocks`]
    : [];
}

/** The words of configs for what shares a scale. */
const STRATEGY = { tensor: "tensor", row: "channel", block: "block" } as const;

function extentFaults(
  { encoding, extent, weight }: StoredModule,
  { encoding: declared, strategy, block }: Group,
): readonly string[] {
  if (encoding !== "FP8" || declared === "MXFP8" || extent === undefined || strategy === null) return [];
  const stored = STRATEGY[extent];
  const isOneBlock = extent === "tensor" && strategy === "block" && coversAll(block, weight.shape);
  if (stored === strategy || isOneBlock) return [];
  return [`it has one scale per ${stored}, but the config says one per ${strategy}`];
}

function coversAll(block: Group["block"], shape: readonly number[]): boolean {
  return block?.every((size, axis) => (shape.at(axis - 2) ?? 1) <= size) ?? false;
}

const INPUT_SCALES = ["input_scale", "activation_scale", "input_global_scale"] as const;

/** Scales of activations must be stored if activations are static, and only then. */
function activationFaults(
  { name, weight, isExpert, encoding }: StoredModule,
  { activations }: Group,
  { scales }: QuantizedFolder,
  engines: readonly EngineId[],
): readonly UnjudgedFault[] {
  if (activations === null) return [];
  const stored = INPUT_SCALES.map((ending) => `${name}.${ending}`).find((input) =>
    scales.scaleTensors.has(input),
  );
  if (activations === "static" && stored === undefined) {
    const message =
      "the config says static activations, but it has no input_scale: engines multiply by noise";
    const ofExpert =
      encoding === "NVFP4"
        ? "reads memory that nothing has written"
        : "starts with 1.0 in its place, and takes the largest scale of the layer's experts";
    const vllm = isExpert
      ? `${ofExpert} (https://github.com/vllm-project/vllm/issues/45212)`
      : "multiplies by -3.4e38 (modelopt.py; https://github.com/vllm-project/llm-compressor/issues/2078)";
    // Engines use the largest scale among the experts of a layer, so an expert that calibration never reached needs none.
    const severity = isExpert ? "warning" : "error";
    return [
      fault("activation-scale-missing", severity, message, {
        tensor: weight.name,
        engines,
        reasons: { vllm },
      }),
    ];
  }
  if (activations === "static" || stored === undefined) return [];
  const message = `${stored} is stored, but the config declares no static activations: engines know no such parameter`;
  return [fault("activation-scale-undeclared", "error", message, { tensor: stored, engines })];
}
