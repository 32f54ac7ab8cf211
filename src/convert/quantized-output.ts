/**
 * Decides what a destination stores and says about quantization: which dialect describes its FP8 weights, which scales of
 * activations and of the KV cache it has, and which scales of the source are left out.
 */
import { declaredQuantization } from "../checkpoint/declared-quantization.ts";
import type { LoadedModel } from "../checkpoint/load.ts";
import { isCacheScale, moduleOf } from "../checkpoint/scales/names.ts";
import { areExponents, readScales } from "../checkpoint/scales/values.ts";
import type { Checkpoint, Tensor } from "../core/checkpoint.ts";
import { countOf, isFp8, sameShape } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { formatQuantity } from "../core/figures.ts";
import { isJsonObject } from "../core/json.ts";
import { Sources } from "../core/read.ts";
import {
  gridOf,
  INPUT_SCALE,
  QUANT_DIALECTS,
  type QuantizationDialect,
  type QuantizedModel,
  WEIGHT_SCALES,
  type WeightScales,
} from "../plugins/quantization-dialect.ts";
import type { Calibration } from "../quantization/calibration.ts";
import { quantizationDialectOf } from "../quantization/dialects.ts";
import type { Policy } from "../quantization/policy.ts";
import type { PlanOptions } from "./options.ts";
import type { PlannedWeight } from "./planned-weights.ts";

/**
 * "copied": no weight is recast, so scales and description stay as they are. "removed": no weight is FP8, so neither
 * remains. "described": both are written anew.
 */
export type QuantizedOutput =
  | { readonly kind: "copied" }
  | { readonly kind: "removed"; readonly warnings: readonly string[] }
  | DescribedOutput;

export interface DescribedOutput extends Pick<QuantizedModel, "scales" | "activations" | "cache"> {
  readonly kind: "described";
  readonly dialect: QuantizationDialect;
  /** scales of activations and of the cache, by their names in the source, with the endings of their new names; others are left out */
  readonly companions: ReadonlyMap<string, string>;
  /** new scales by role key; null: none were calibrated */
  readonly calibrated: Pick<Calibration, "inputs" | "cached"> | null;
  readonly warnings: readonly string[];
}

/**
 * @throws USAGE           for a dialect or an extent of scales without FP8 weights
 * @throws PLAN_IMPOSSIBLE if one description cannot hold for all FP8 weights
 */
export async function planQuantization(
  source: LoadedModel,
  weights: readonly PlannedWeight[],
  policy: Policy,
  options: Pick<PlanOptions, "quantDialect" | "quantScales" | "kvCache" | "plugins">,
  calibration: Calibration | null,
): Promise<QuantizedOutput> {
  const { quantDialect, quantScales, kvCache } = options;
  const dialect = quantizationDialectOf(quantDialect ?? QUANT_DIALECTS[0], options);
  if (policy.to !== null || quantDialect !== undefined) refuseFourBits(weights);
  const fp8 = weights.filter(({ dtype }) => isFp8(dtype));
  for (const [option, value] of Object.entries({ quantDialect, quantScales })) {
    if (value === undefined || (fp8.length > 0 && (option === "quantDialect" || policy.to !== null)))
      continue;
    const message = `\`${option}\` has no meaning where no weight is FP8`;
    const next = "add `dtype` fp8-e4m3";
    throw new IsologitError("USAGE", message, {}, { next });
  }
  if (policy.to === null && quantDialect === undefined) {
    if (calibration === null) return { kind: "copied" };
    const next = "choose the `quantDialect` that shall describe them";
    throw new IsologitError("USAGE", "`calibrate` adds scales to FP8 weights that are copied", {}, { next });
  }
  if (fp8.length === 0) return { kind: "removed", warnings: await removedWarnings(source) };
  const scales = scalesOf(source, fp8, quantScales);
  if (calibration !== null) refuseCalibrated(source, dialect, scales, kvCache !== undefined);
  const takesInputs = calibration === null && dialect.takesInputScales(scales);
  const inputs = takesInputs ? inputScales(source, fp8) : null;
  const cache = await cacheScales(source);
  const companions = new Map([...(inputs ?? []), ...cache.names]);
  const left = source.scales.unusedScales.filter((name) => !companions.has(name));
  const [leftCache, leftInputs] = [left.filter(isCacheScale), left.filter((name) => !isCacheScale(name))];
  return {
    ...{ kind: "described", dialect, scales, companions },
    calibrated: calibration && { ...calibration, ...(kvCache === undefined && { cached: new Map() }) },
    activations: inputs === null && calibration === null ? "dynamic" : "static",
    cache: cache.names.size > 0 || kvCache !== undefined,
    warnings: [
      ...(calibration?.warnings ?? []),
      ...leftWarnings(leftInputs, "activations", "the activations are described as dynamic"),
      ...leftWarnings(leftCache, "the KV cache", cache.reason),
      ...(cache.isUnscaled && kvCache === undefined
        ? ["the source declares an FP8 KV cache and stores no scale of it: the cache is not declared"]
        : []),
    ],
  };
}

/**
 * NVFP4 is not described anew. Its second scale is a factor for ModelOpt and a divisor for compressed-tensors, and the
 * reciprocal of one is rounded, so that the weights would be others.
 *
 * @throws PLAN_IMPOSSIBLE
 */
function refuseFourBits(weights: readonly PlannedWeight[]): void {
  const packed = weights.find(({ dtype }) => dtype === "F4");
  if (packed === undefined) return;
  const message =
    "it is NVFP4, which is copied without a change, or decoded: the dialects store reciprocal scales of it, which are rounded";
  const next = "leave `quantDialect` and `recipe` out, or convert with `dtype` bf16";
  throw new IsologitError("PLAN_IMPOSSIBLE", message, { tensor: packed.name }, { next });
}

/** @throws PLAN_IMPOSSIBLE if there is no place for calibrated scales: in the dialect, or because the source has such scales */
function refuseCalibrated(
  { scales: { unusedScales }, checkpoint }: LoadedModel,
  dialect: QuantizationDialect,
  scales: WeightScales,
  cache: boolean,
): void {
  if (!dialect.takesInputScales(scales)) {
    const message = `${dialect.id} has dynamic activations beside one scale a ${scales}: calibrated scales have no place there`;
    const next = "leave `calibrate` out, or choose `quantScales` tensor";
    throw new IsologitError("PLAN_IMPOSSIBLE", message, {}, { next });
  }
  const present = unusedScales.find((name) => cache || !isCacheScale(name));
  if (present === undefined) return;
  const message = "the source has this scale, and a conversion replaces no scale";
  const next = `leave \`calibrate\` out, or decode the weights with \`isologit recast ${checkpoint.store.url} PLAIN --dtype bf16\`, then run this command with PLAIN in place of the source, and \`dtype\` fp8-e4m3`;
  throw new IsologitError("PLAN_IMPOSSIBLE", message, { tensor: present }, { next });
}

/**
 * The extent that holds for all FP8 weights: those of the source that stay FP8, and those that are cast.
 *
 * @throws PLAN_IMPOSSIBLE if there is none, or the source's weights have another than `asked`
 */
function scalesOf(
  source: LoadedModel,
  fp8: readonly PlannedWeight[],
  asked: WeightScales | undefined,
): WeightScales {
  const copied = fp8.filter(({ cast }) => cast === null).map(({ from }) => from[0]!);
  const possible = asked === undefined ? WEIGHT_SCALES : [asked];
  const scales = possible.find((extent) => copied.every((weight) => hasExtent(source, weight, extent)));
  if (scales !== undefined) return scales;
  const odd = copied.find((weight) => !possible.some((extent) => hasExtent(source, weight, extent)));
  const [rows, columns] = source.scales.scaleOf.get((odd ?? copied[0]!).name)!.block;
  const message =
    odd === undefined
      ? "its FP8 weights have scales of different extents, and a description has one"
      : `it has a scale for each block of ${rows} x ${columns} elements, which the description would not say`;
  const next = "convert the source with `dtype` bf16 first";
  throw new IsologitError("PLAN_IMPOSSIBLE", message, odd === undefined ? {} : { tensor: odd.name }, {
    next,
  });
}

/** Whether the scales of a stored FP8 weight are those of this extent. */
function hasExtent({ scales, tensors }: LoadedModel, { name, shape }: Tensor, extent: WeightScales): boolean {
  const { grid, tensor } = scales.scaleOf.get(name)!; // loading refuses an FP8 weight without scales
  return (
    (extent === "mxfp8") === areExponents(tensors.get(tensor)!) &&
    sameShape(grid, gridOf(shape.slice(-2), extent))
  );
}

/** Static activation scales, if every FP8 weight is copied from the source with one. */
function inputScales(
  { scales, tensors }: LoadedModel,
  fp8: readonly PlannedWeight[],
): ReadonlyMap<string, string> | null {
  const names = new Map<string, string>();
  for (const { cast, from } of fp8) {
    const module = moduleOf(from[0]!.name);
    const stored = INPUT_SCALES.map((ending) => module + ending).find(
      (scale) => scales.scaleTensors.has(scale) && countOf(tensors.get(scale)!.shape) === 1,
    );
    if (cast !== null || stored === undefined) return null;
    names.set(stored, INPUT_SCALE);
  }
  return names;
}

/** Names that tools give to a static activation scale. */
const INPUT_SCALES = [INPUT_SCALE, ".activation_scale"] as const;

/** The scales of the KV cache that can be written, all or none, and why not. */
async function cacheScales(source: LoadedModel) {
  const { scales, tensors, checkpoint } = source;
  const stored = scales.unusedScales.filter(isCacheScale);
  const none = (reason: string) => ({ names: new Map<string, string>(), reason, isUnscaled: false });
  if (!(await declaresCache(checkpoint))) return none("the source declares no FP8 KV cache");
  await using files = new Sources(checkpoint.store);
  for (const name of stored) {
    const tensor = tensors.get(name)!;
    if (countOf(tensor.shape) !== 1)
      return none(`${name} has ${countOf(tensor.shape)} values, engines read one`);
    try {
      await readScales(tensor, files);
    } catch (error) {
      if (!(error instanceof IsologitError) || error.exit !== 3) throw error;
      return none(`${name}: ${error.message}`);
    }
  }
  const names = new Map(stored.map((name) => [name, name.slice(moduleOf(name).length)]));
  return { names, reason: "", isUnscaled: stored.length === 0 };
}

/** Whether a source says that its KV cache is FP8. */
async function declaresCache(checkpoint: Checkpoint): Promise<boolean> {
  const value = (await declaredQuantization(checkpoint))?.value;
  if (!isJsonObject(value)) return false;
  const { kv_cache_scheme: scheme, kv_cache_quant_algo: algorithm } = value;
  return isJsonObject(scheme) ? scheme.num_bits === 8 : algorithm === "FP8";
}

/** What a recast leaves out that describes weights which are not FP8 any more, or never were. */
async function removedWarnings(source: LoadedModel): Promise<readonly string[]> {
  const { scales, checkpoint } = source;
  const reason = "no weight of the destination is FP8";
  const cache = scales.unusedScales.filter(isCacheScale);
  const inputs = scales.unusedScales.filter((name) => !isCacheScale(name));
  const declared = scales.scaleOf.size === 0 ? await declaredQuantization(checkpoint) : null;
  return [
    ...leftWarnings(inputs, "activations", reason),
    ...leftWarnings(cache, "the KV cache", reason),
    ...(declared === null
      ? []
      : [
          `${declared.file} declares a quantization, but no weight is quantized: the declaration is left out`,
        ]),
  ];
}

function leftWarnings(names: readonly string[], of: string, reason: string): readonly string[] {
  if (names.length === 0) return [];
  return [`${formatQuantity(names.length, "scale")} of ${of}, ${names[0]} the first, left out: ${reason}`];
}
