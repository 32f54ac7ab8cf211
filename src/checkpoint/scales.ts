/**
 * FP8 scales: which stored tensors are scales of which weights, and their values. Scales are read under the names that
 * ModelOpt, compressed-tensors, DeepSeek and transformers give them.
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
  /** by the name of the FP8 tensor; real = stored * scale, one for the tensor or one a row */
  readonly scaleOf: ReadonlyMap<string, WeightScale>;
  /** every tensor that is a scale and no role, those unread included */
  readonly scaleTensors: ReadonlySet<string>;
  /** the weight that a companion stands beside, where there is one */
  readonly ownerOf: ReadonlyMap<string, string>;
  /** scales of activations and caches: they travel, no verdict claims them */
  readonly unusedScales: readonly string[];
}

/** The same factor by two names: DeepSeek's `_inv` is the inverse of the quantiser's, so it multiplies too. */
const ENDINGS = ["_scale", "_scale_inv"] as const;

const UNREAD = /\.(input|activation|k|v|q|kv|output)_scale$/;

/**
 * Scales paired with their weights, by name and shape alone.
 *
 * @throws SCALE_INVALID when an FP8 weight has no scale or two, a scale no weight, or a weight that is not FP8
 * @throws UNSUPPORTED   for block scales, for types of other hardware (FNUZ), for scales of packed types
 */
export function pairScales(tensors: readonly Tensor[]): ScaleTable {
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const scaleOf = new Map<string, WeightScale>();
  const ownerOf = new Map<string, string>();
  const companions = new Set<string>();
  const unread: string[] = [];
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
      companions.add(name);
    } else if (UNREAD.test(name)) {
      const owner = `${moduleOf(name)}.weight`;
      if (byName.has(owner)) ownerOf.set(name, owner);
      companions.add(name);
      unread.push(name);
    } else if (/\.weight_scale(_inv)?$/.test(name)) {
      throw invalid(name, "the weight that it scales is not in the checkpoint");
    }
  }
  for (const { name, dtype } of tensors) {
    if (!isFp8(dtype) || scaleOf.has(name) || companions.has(name)) continue;
    const message = `${dtype} has no scale: expected ${name}_scale or ${name}_scale_inv`;
    throw invalid(
      name,
      message,
      "fetch the checkpoint again, all of it; without the scale its codes mean nothing",
    );
  }
  return { scaleOf, scaleTensors: companions, ownerOf, unusedScales: unread };
}

/** The weight that this name scales, if it is one's name with an ending added. */
function weightOf(name: string, byName: ReadonlyMap<string, Tensor>): Tensor | undefined {
  const ending = ENDINGS.find((one) => name.endsWith(one));
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

/** Where scales can be read from: the opened files of a checkpoint. */
export interface RangeReader {
  bytes(path: string, offset: number, size: number): Promise<Uint8Array>;
}

/** The one scale of a tensor, F32. @throws SCALE_INVALID; UNSUPPORTED for one scale a row */
export async function readScale(tensor: Tensor, files: RangeReader): Promise<number> {
  const scales = await readScales(tensor, files);
  if (scales.length === 1) return scales[0]!;
  throw unsupported(tensor.name, `${scales.length} scales, one a row, can be moved but not decoded`);
}

/** The scales of a tensor as F32, one or one a row. @throws SCALE_INVALID */
export async function readScales(tensor: Tensor, files: RangeReader): Promise<Float32Array> {
  const [piece, ...others] = tensor.pieces;
  if (piece === undefined || others.length > 0 || piece.strides !== undefined) {
    throw unsupported(tensor.name, "a scale in several pieces is not read");
  }
  const size = bytesOf(tensor.dtype, tensor.shape, { tensor: tensor.name });
  return scalesOf(tensor, await files.bytes(piece.file, piece.offset, size));
}

/**
 * Stored scales as F32. A scale is widened, never derived again from weights.
 *
 * @throws SCALE_INVALID for 0, negative and non-finite scales, which no engine survives, and for subnormal ones
 *         of 16 bits, which have lost their precision. Subnormal F32 ones are what subnormal weights need
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

/** The tensor that holds the scale of a weight we write: F32 of SCALE_SHAPE. */
export function scaleName(weight: string): string {
  return `${weight}_scale`;
}

/** As compressed-tensors writes one scale a tensor; vLLM loads [] as well. */
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
