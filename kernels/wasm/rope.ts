// Rotary positions: turns pairs of elements of each head.
import { loadPart, mulAdd, offset, storePart } from "./lanes";

/**
 * Heads [from, to) of all tokens. `table` has a row of `rotary` floats for each token: the cosines of the pairs, then
 * the sines. Elements after the first `rotary` of a head are copied.
 */
export function rope(
  heads: i32,
  dim: i32,
  rotary: i32,
  interleaved: i32,
  x: usize,
  table: usize,
  out: usize,
  from: i32,
  to: i32,
): void {
  const half = rotary >> 1;
  for (let head = from; head < to; head++) {
    const at = <usize>head * offset(dim);
    const cosines = table + <usize>(head / heads) * offset(rotary);
    if (interleaved) turnNeighbours(x + at, cosines, half, out + at);
    else turnHalves(x + at, cosines, half, out + at);
    memory.copy(out + at + offset(rotary), x + at + offset(rotary), offset(dim - rotary));
  }
}

/** Pairs (i, i + half). */
function turnHalves(x: usize, cosines: usize, half: i32, out: usize): void {
  const step = offset(half);
  for (let i = 0; i < half; i += 4) {
    const at = offset(i);
    const cos = loadPart(cosines + at, half - i);
    const sin = loadPart(cosines + step + at, half - i);
    const first = loadPart(x + at, half - i);
    const second = loadPart(x + step + at, half - i);
    storePart(out + at, f32x4.sub(f32x4.mul(first, cos), f32x4.mul(second, sin)), half - i);
    storePart(out + step + at, mulAdd(f32x4.mul(second, cos), first, sin), half - i);
  }
}

/** Pairs (2 i, 2 i + 1). */
function turnNeighbours(x: usize, cosines: usize, half: i32, out: usize): void {
  for (let i = 0; i < half; i += 4) {
    const cos = loadPart(cosines + offset(i), half - i);
    const sin = loadPart(cosines + offset(half + i), half - i);
    const at = offset(2 * i);
    const count = 2 * (half - i);
    const low = loadPart(x + at, count);
    const high = loadPart(x + at + 16, count - 4);
    const first = v128.shuffle<f32>(low, high, 0, 2, 4, 6);
    const second = v128.shuffle<f32>(low, high, 1, 3, 5, 7);
    const a = f32x4.sub(f32x4.mul(first, cos), f32x4.mul(second, sin));
    const b = mulAdd(f32x4.mul(second, cos), first, sin);
    storePart(out + at, v128.shuffle<f32>(a, b, 0, 4, 1, 5), count);
    storePart(out + at + 16, v128.shuffle<f32>(a, b, 2, 6, 3, 7), count - 4);
  }
}
