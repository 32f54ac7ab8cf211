// What all encoders of ggml's blocks share. Every operation is rounded once to F32 and no sum is reordered: the bytes are those
// of llama-quantize on x86-64. Lanes therefore hold different blocks or sub-blocks, never parts of one sum.
import { narrowF16, widenF16 } from "../rounding";

/** F16 pattern of a number; ties to even. */
export function halfOf(value: f32): i32 {
  return i32x4.extract_lane(narrowF16(f32x4.splat(value)), 0);
}

/** The value of an F16 pattern. */
export function valueOfHalf(half: i32): f32 {
  return f32x4.extract_lane(widenF16(i32x4.splat(half)), 0);
}

@inline
export function isInfiniteHalf(half: i32): bool {
  return (half & 0x7c00) == 0x7c00;
}

/** Adding 1.5 * 2^23 rounds a number below 2^22 to an integer, ties to even; its last bits are then the integer. */
export const ROUND: f32 = 12582912;

/** ggml's nearest integer. Beyond 2^22 the bits wrap round, and they do so here too. */
@inline
export function nearest(value: f32): i32 {
  return (reinterpret<i32>(value + ROUND) & 0x7fffff) - 0x400000;
}

@inline
export function nearestLanes(values: v128): v128 {
  const bits = v128.and(f32x4.add(values, f32x4.splat(ROUND)), i32x4.splat(0x7fffff));
  return i32x4.sub(bits, i32x4.splat(0x400000));
}

/** Element i of four rows as vector i, for the four elements at `from`; rows are `stride` bytes apart. */
@inline
export function transpose(from: usize, stride: usize, to: usize): void {
  const a = v128.load(from);
  const b = v128.load(from + stride);
  const c = v128.load(from + 2 * stride);
  const d = v128.load(from + 3 * stride);
  const ab = v128.shuffle<f32>(a, b, 0, 4, 1, 5);
  const cd = v128.shuffle<f32>(c, d, 0, 4, 1, 5);
  const ab2 = v128.shuffle<f32>(a, b, 2, 6, 3, 7);
  const cd2 = v128.shuffle<f32>(c, d, 2, 6, 3, 7);
  v128.store(to, v128.shuffle<f64>(ab, cd, 0, 2));
  v128.store(to, v128.shuffle<f64>(ab, cd, 1, 3), 16);
  v128.store(to, v128.shuffle<f64>(ab2, cd2, 0, 2), 32);
  v128.store(to, v128.shuffle<f64>(ab2, cd2, 1, 3), 48);
}
