/** Reads the values of scales. Scales are not computed from weights. */
import type { Tensor } from "../../core/checkpoint.ts";
import { bytesOf, countOf, type DType, isFloat } from "../../core/dtype.ts";
import { IsologitError } from "../../core/errors.ts";
import { widen } from "../../core/float.ts";
import { extentsOf } from "../../core/read.ts";

/** Reads ranges of the files of a checkpoint. */
export interface RangeReader {
  bytes(path: string, offset: number, size: number): Promise<Uint8Array>;
}

/** The scale of a tensor, F32. @throws SCALE_INVALID; UNSUPPORTED: the tensor has several scales */
export async function readScale(tensor: Tensor, files: RangeReader): Promise<number> {
  const scales = await readScales(tensor, files);
  if (scales.length === 1) return scales[0]!;
  const message = `${scales.length} scales; here one scale a tensor is read`;
  throw new IsologitError("UNSUPPORTED", message, { tensor: tensor.name });
}

/** All scales of a tensor as F32, in stored order. @throws SCALE_INVALID */
export async function readScales(tensor: Tensor, files: RangeReader): Promise<Float32Array> {
  const bytes = new Uint8Array(bytesOf(tensor.dtype, tensor.shape, { tensor: tensor.name }));
  for (const { file, offset, size, to } of extentsOf(tensor, 0, countOf(tensor.shape)))
    bytes.set(await files.bytes(file, offset, size), to);
  return scalesOf(tensor, bytes);
}

/** Least normal number of the types in which a scale loses precision below it. Subnormal weights need subnormal F32 scales. */
const LEAST: Partial<Record<DType, number>> = { BF16: 2 ** -126, F16: 2 ** -14 };

/**
 * Widens stored scales to F32. U8 holds exponents as E8M0 does: 2^(byte - 127), and 255 is NaN.
 *
 * @param first index of the first of these scales in the tensor, for errors
 * @throws SCALE_INVALID: a scale is 0, negative or not finite, or is a subnormal number of 16 bits, which has lost its
 *   precision
 */
export function scalesOf(tensor: Pick<Tensor, "name" | "dtype">, bytes: Uint8Array, first = 0): Float32Array {
  const { name, dtype } = tensor;
  if (!areExponents(tensor) && !isFloat(dtype)) {
    const message = `a scale of ${dtype}; expected F32, BF16, F16 or E8M0`;
    throw new IsologitError("SCALE_INVALID", message, { tensor: name });
  }
  const scales = isFloat(dtype) ? widen(dtype, bytes) : Float32Array.from(bytes, (byte) => EXPONENTS[byte]!);
  const least = LEAST[dtype] ?? 0;
  for (const [index, scale] of scales.entries()) {
    if (scale > 0 && scale >= least && scale < Infinity) continue;
    const message = `the scale is ${scale}; expected a positive, finite${least > 0 ? ", normal" : ""} number`;
    throw new IsologitError("SCALE_INVALID", message, { tensor: name, index: first + index });
  }
  return scales;
}

/** Whether scales are powers of two, stored as their exponents: as E8M0, or as the same bytes in U8. */
export function areExponents({ dtype }: Pick<Tensor, "dtype">): boolean {
  return dtype === "U8" || dtype === "F8_E8M0";
}

/** The value of each E8M0 byte. */
const EXPONENTS = Float32Array.from({ length: 256 }, (_, byte) => (byte === 255 ? NaN : 2 ** (byte - 127)));
