/**
 * FP8 scales: the scale tensor of each weight, and the values of scales. The names of ModelOpt, compressed-tensors,
 * DeepSeek and Transformers are read.
 */
import type { Tensor } from "../core/checkpoint.ts";
import { bytesOf, countOf, isFloat, isFp8, type Shape } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { widen } from "../core/float.ts";

/** Where the scale of a weight is stored: one number for the tensor ("all"), or one for each row (0). */
interface WeightScale {
  readonly tensor: string;
  readonly axis: "all" | 0;
}

export interface ScaleTable {
  /** name of the FP8 tensor -> its scale; real = stored * scale, one scale for the tensor or one for each row */
  readonly scaleOf: ReadonlyMap<string, WeightScale>;
  /** every tensor that is a scale and not a role, with the unused scales */
  readonly scaleTensors: ReadonlySet<string>;
  /** scale tensor -> the weight that it belongs to */
  readonly ownerOf: ReadonlyMap<string, string>;
  /** scales of activations and caches: a conversion copies them, and no verdict covers them */
  readonly unusedScales: readonly string[];
}

/** Two names of one factor: DeepSeek's `_inv` is the inverse of the quantizer's factor, so it is a multiplier too. */
const ENDINGS = ["_scale", "_scale_inv"] as const;

const UNUSED_SCALE = /\.(input|activation|k|v|q|kv|output)_scale$/;

/**
 * Pairs scales with their weights, by name and shape.
 *
 * @throws SCALE_INVALID when an FP8 weight has no scale or two, a scale no weight, or a weight that is not FP8
 * @throws UNSUPPORTED   for block scales, for types of other hardware (FNUZ), for scales of packed types
 */
export function pairScales(tensors: readonly Tensor[]): ScaleTable {
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const scaleOf = new Map<string, WeightScale>();
  const ownerOf = new Map<string, string>();
  const scaleTensors = new Set<string>();
  const unusedScales: string[] = [];
  for (const tensor of tensors) {
    const { name } = tensor;
    refuseType(tensor);
    const weight = weightOf(name, byName);
    if (weight !== undefined) {
      const other = scaleOf.get(weight.name);
      if (other !== undefined) {
        throw invalid(name, `${weight.name} already has the scale ${other.tensor}`);
      }
      scaleOf.set(weight.name, { tensor: name, axis: axisOf(tensor, weight) });
      ownerOf.set(name, weight.name);
      scaleTensors.add(name);
    } else if (UNUSED_SCALE.test(name)) {
      const owner = `${moduleOf(name)}.weight`;
      if (byName.has(owner)) ownerOf.set(name, owner);
      scaleTensors.add(name);
      unusedScales.push(name);
    } else if (/\.weight_scale(_inv)?$/.test(name)) {
      throw invalid(name, "the weight that it scales is not in the checkpoint");
    }
  }
  for (const { name, dtype } of tensors) {
    if (!isFp8(dtype) || scaleOf.has(name) || scaleTensors.has(name)) continue;
    const message = `${dtype} has no scale: expected ${name}_scale or ${name}_scale_inv`;
    throw invalid(
      name,
      message,
      "fetch the checkpoint again, all of it; without the scale its codes mean nothing",
    );
  }
  return { scaleOf, scaleTensors, ownerOf, unusedScales };
}

/** The weight of a scale tensor: its name without the ending of a scale. */
function weightOf(name: string, byName: ReadonlyMap<string, Tensor>): Tensor | undefined {
  const ending = ENDINGS.find((candidate) => name.endsWith(candidate));
  return ending && byName.get(name.slice(0, -ending.length));
}

function axisOf(scale: Tensor, weight: Tensor): "all" | 0 {
  if (!isFp8(weight.dtype)) {
    if (isFloat(weight.dtype))
      throw invalid(scale.name, `${weight.name} is ${weight.dtype}, which takes no scale`);
    throw unsupported(scale.name, `${weight.name} is ${weight.dtype}; of quantised weights only FP8 is read`);
  }
  if (!isFloat(scale.dtype) || isFp8(scale.dtype)) {
    throw unsupported(scale.name, `its scales are ${scale.dtype}; F32, BF16 and F16 are read`);
  }
  const rows = weight.shape[0] ?? 1;
  if (countOf(scale.shape) === 1) return "all";
  if (isRows(scale.shape, rows)) return 0;
  const [found, of] = [scale.shape.join(", "), weight.shape.join(", ")];
  throw unsupported(scale.name, `[${found}] scales blocks of [${of}]; one scale a tensor or a row is read`);
}

function isRows(shape: Shape, rows: number): boolean {
  return shape[0] === rows && (shape.length === 1 || (shape.length === 2 && shape[1] === 1));
}

function refuseType({ name, dtype }: Tensor): void {
  if (dtype.endsWith("FNUZ")) {
    throw unsupported(name, `${dtype} is AMD's FP8, whose bits mean half of what F8_E4M3 means by them`);
  }
  if (name.endsWith(".weight_scale_2")) throw unsupported(name, "NVFP4 weights are not read");
}

/** Reads ranges of the files of a checkpoint. */
export interface RangeReader {
  bytes(path: string, offset: number, size: number): Promise<Uint8Array>;
}

/** The scale of a tensor, F32. @throws SCALE_INVALID; UNSUPPORTED: the tensor has one scale for each row */
export async function readScale(tensor: Tensor, files: RangeReader): Promise<number> {
  const scales = await readScales(tensor, files);
  if (scales.length === 1) return scales[0]!;
  throw unsupported(tensor.name, `${scales.length} scales, one a row, can be moved but not decoded`);
}

/** The scales of a tensor as F32, one or one for each row. @throws SCALE_INVALID */
export async function readScales(tensor: Tensor, files: RangeReader): Promise<Float32Array> {
  const [piece, ...others] = tensor.pieces;
  if (piece === undefined || others.length > 0 || piece.strides !== undefined) {
    throw unsupported(tensor.name, "a scale in several pieces is not read");
  }
  const size = bytesOf(tensor.dtype, tensor.shape, { tensor: tensor.name });
  return scalesOf(tensor, await files.bytes(piece.file, piece.offset, size));
}

/**
 * Widens stored scales to F32. Scales are not computed from weights.
 *
 * @throws SCALE_INVALID: a scale is 0, negative or not finite, or is a subnormal number of 16 bits, which has lost its
 *   precision. Subnormal weights need subnormal F32 scales, so these are valid
 */
export function scalesOf(tensor: Pick<Tensor, "name" | "dtype">, bytes: Uint8Array): Float32Array {
  const { name, dtype } = tensor;
  if (!isFloat(dtype) || isFp8(dtype)) throw invalid(name, `a scale of ${dtype}; expected F32, BF16 or F16`);
  const least = { F32: 0, BF16: 2 ** -126, F16: 2 ** -14 }[dtype];
  const scales = widen(dtype, bytes);
  for (const [index, scale] of scales.entries()) {
    if (scale > 0 && scale >= least && scale < Infinity) continue;
    const message = `the scale is ${scale}; expected a positive, finite${least > 0 ? ", normal" : ""} number`;
    throw new IsologitError("SCALE_INVALID", message, { tensor: name, index });
  }
  return scales;
}

/** Name of the scale tensor that we write for a weight: F32 of SCALE_SHAPE. */
export function scaleName(weight: string): string {
  return `${weight}_scale`;
}

/** Shape of one scale for a tensor, as compressed-tensors writes it; vLLM loads [] too. */
export const SCALE_SHAPE: Shape = [1];

/** `a.b` of `a.b.weight` and `a.b.input_scale`. */
export function moduleOf(name: string): string {
  return name.slice(0, name.lastIndexOf("."));
}

function invalid(tensor: string, message: string, next?: string): IsologitError {
  return new IsologitError("SCALE_INVALID", message, { tensor }, next === undefined ? {} : { next });
}

function unsupported(tensor: string, message: string): IsologitError {
  const next = "quantise the original checkpoint anew, with one scale a tensor: `dtype` fp8-e4m3";
  return new IsologitError("UNSUPPORTED", message, { tensor }, { next });
}
