/**
 * Whether blocks of a quantised type that another tool wrote stand for the weights of a source. Tools choose scales by rules of
 * their own (least squares, importance), so elements are not compared one by one: the error of each block is. A block with a
 * wrong scale, a wrong sign, or the weights of another place has an error of about its own size or more.
 *
 * - `relative` is the largest relative L2 of a block whose elements are rounded to the nearest of evenly spaced values: the half
 *   of a step over the largest magnitude, times the root of the elements that share a step. One large weight among zeros has
 *   it. Q8_0: sqrt(32) / 254; Q6_K: sqrt(16) / 64; Q5: sqrt(32) / 31; Q4: sqrt(32) / 15; Q3_K: sqrt(16) / 8. The values of IQ4
 *   are up to 24 / 127 apart: 0.53. For Q2_K it would be above 1; 0.95 is below the error of a block of zeros.
 *   Blocks of ggml reach about half of it: of 209 rows with spikes, ties and heavy tails, Q2_K reaches 0.84.
 * - `units` is the largest integer by which the F16 numbers of a block are multiplied: an F16 below 2^-14 is rounded by up to
 *   2^-25, so each element may be wrong by `units` times that.
 */
import { blockElements, type DecodedBlock } from "../core/dtype.ts";

const BOUNDS: Readonly<Record<DecodedBlock, { readonly relative: number; readonly units: number }>> = {
  Q8_0: { relative: 0.0223, units: 127 },
  Q4_0: { relative: 0.377, units: 8 },
  Q4_1: { relative: 0.377, units: 15 + 1 },
  Q5_0: { relative: 0.183, units: 16 },
  Q5_1: { relative: 0.183, units: 31 + 1 },
  IQ4_NL: { relative: 0.53, units: 127 },
  Q2_K: { relative: 0.95, units: 15 * 3 + 15 },
  Q3_K: { relative: 0.5, units: 32 * 4 },
  Q4_K: { relative: 0.377, units: 63 * 15 + 63 },
  Q5_K: { relative: 0.183, units: 63 * 31 + 63 },
  Q6_K: { relative: 0.0625, units: 128 * 32 },
  IQ4_XS: { relative: 0.53, units: 32 * 127 },
};

/** Largest relative L2 of a block. */
export function blockBound(dtype: DecodedBlock): number {
  return BOUNDS[dtype].relative;
}

/**
 * The first block whose error is beyond its bound, or -1.
 *
 * @param sums for each block the sum of (w - v)^2 and the sum of w^2, [blocks, 2]; NaN is beyond every bound
 */
export function firstFarBlock(dtype: DecodedBlock, sums: Float64Array): number {
  const { relative, units } = BOUNDS[dtype];
  const floor = blockElements(dtype) * (units * 2 ** -25) ** 2;
  for (let i = 0; i < sums.length; i += 2) {
    if (!(sums[i]! <= relative ** 2 * sums[i + 1]! + floor)) return i / 2;
  }
  return -1;
}
