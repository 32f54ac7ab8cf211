// Encoder of Q6_K: a block of 256 has sixteen sub-blocks with a scale each. As in ggml, the scale of a sub-block is fitted:
// its numbers are rounded with nineteen candidates, and the best scale for each set of codes follows by least squares,
// weighted by the squares of the numbers.
//
// The lanes of a vector are four sub-blocks: element i of the four is vector i. Half of a block is two such groups, of the even
// and of the odd sub-blocks, as its codes are packed.
import { halfOf, isInfiniteHalf, nearest, nearestLanes, ROUND, transpose, valueOfHalf } from "./numbers";

/** Bytes of a vector for each element of four sub-blocks. */
const GROUP: usize = 256;
/** Offsets in the scratch memory: numbers of four groups, weights of one and weights times numbers, results of each group. */
const WEIGHTS: usize = 1024;
const PRODUCTS: usize = 1280;
const SCALES: usize = 1536;
/** With it the codes of the best fit are computed again; 0 for sub-blocks of zeros. */
const INVERSES: usize = 1600;
/** ggml's limit below which a sub-block is zeros. */
const TINY: f32 = 1e-15;

/** @returns number of the first block whose scale is infinite, or -1; `scratch` has 1664 bytes, aligned to 16 */
export function quantizeQ6_K(from: usize, to: usize, blocks: i32, scratch: usize): i32 {
  let infinite = -1;
  for (let block = 0; block < blocks; block++) {
    for (let group: usize = 0; group < 4; group++) {
      const numbers = scratch + group * GROUP;
      const first = from + (group >> 1) * 512 + (group & 1) * 64;
      for (let i: usize = 0; i < 64; i += 16) transpose(first + i, 128, numbers + 4 * i);
      fit(numbers, scratch, group);
    }
    const largest = largestScale(scratch);
    if (abs(largest) < TINY) memory.fill(to, 0, 210);
    else {
      const inverse: f32 = -128 / largest;
      const half = halfOf(1 / inverse);
      if (infinite < 0 && isInfiniteHalf(half)) infinite = block;
      store<u16>(to, <u16>half, 208);
      for (let i: usize = 0; i < 16; i++) {
        store<i8>(to + 192 + i, <i8>min(127, nearest(inverse * load<f32>(scaleAt(scratch, i)))));
      }
      for (let group: usize = 0; group < 4; group++) storeCodes(scratch, group, to, valueOfHalf(half));
    }
    from += 1024;
    to += 210;
  }
  return infinite;
}

/** Where the fitted scale of sub-block i is. */
@inline
function scaleAt(scratch: usize, i: usize): usize {
  const group = ((i >> 3) << 1) + (i & 1);
  return scratch + SCALES + 16 * group + 4 * ((i >> 1) & 3);
}

/** NaN if there is one: the square of a number was infinite. */
@inline
function largestScale(scratch: usize): f32 {
  let largest: f32 = 0;
  for (let i: usize = 0; i < 16; i++) {
    const scale = load<f32>(scaleAt(scratch, i));
    if (isNaN(scale)) return scale;
    if (abs(scale) > abs(largest)) largest = scale;
  }
  return largest;
}

@inline
function fit(numbers: usize, scratch: usize, group: usize): void {
  let outermost = f32x4.splat(0);
  let magnitude = outermost;
  for (let i: usize = 0; i < GROUP; i += 16) {
    const x = v128.load(numbers + i);
    const larger = f32x4.gt(f32x4.abs(x), magnitude);
    outermost = v128.bitselect(x, outermost, larger);
    magnitude = v128.bitselect(f32x4.abs(x), magnitude, larger);
    const w = f32x4.mul(x, x);
    v128.store(scratch + WEIGHTS + i, w);
    v128.store(scratch + PRODUCTS + i, f32x4.mul(w, x));
  }
  let inverse = f32x4.div(f32x4.splat(-32), outermost);
  let sumLX = f32x4.splat(0);
  let sumLL = sumLX;
  for (let i: usize = 0; i < GROUP; i += 16) {
    const code = roundCode(v128.load(numbers + i), inverse);
    sumLX = f32x4.add(sumLX, f32x4.mul(v128.load(scratch + PRODUCTS + i), code));
    sumLL = f32x4.add(sumLL, f32x4.mul(f32x4.mul(v128.load(scratch + WEIGHTS + i), code), code));
  }
  let scale = v128.andnot(f32x4.div(sumLX, sumLL), f32x4.eq(sumLL, f32x4.splat(0)));
  let best = f32x4.mul(scale, sumLX);
  // Two candidates at a time share their loads; neither depends on the other.
  for (let candidate = 0; candidate < 18; candidate += 2) {
    const a = f32x4.div(f32x4.splat(dividend(candidate)), outermost);
    const b = f32x4.div(f32x4.splat(dividend(candidate + 1)), outermost);
    let aLX = f32x4.splat(0);
    let aLL = aLX;
    let bLX = aLX;
    let bLL = aLX;
    let i: usize = 0;
    do {
      const x = v128.load(numbers + i);
      const w = v128.load(scratch + WEIGHTS + i);
      const wx = v128.load(scratch + PRODUCTS + i);
      const codeA = roundCode(x, a);
      const codeB = roundCode(x, b);
      aLX = f32x4.add(aLX, f32x4.mul(wx, codeA));
      bLX = f32x4.add(bLX, f32x4.mul(wx, codeB));
      aLL = f32x4.add(aLL, f32x4.mul(f32x4.mul(w, codeA), codeA));
      bLL = f32x4.add(bLL, f32x4.mul(f32x4.mul(w, codeB), codeB));
      i += 16;
    } while (i != GROUP);
    const betterA = isBetter(aLX, aLL, best);
    scale = v128.bitselect(f32x4.div(aLX, aLL), scale, betterA);
    best = v128.bitselect(f32x4.mul(scale, aLX), best, betterA);
    inverse = v128.bitselect(a, inverse, betterA);
    const betterB = isBetter(bLX, bLL, best);
    scale = v128.bitselect(f32x4.div(bLX, bLL), scale, betterB);
    best = v128.bitselect(f32x4.mul(scale, bLX), best, betterB);
    inverse = v128.bitselect(b, inverse, betterB);
  }
  const isTiny = f32x4.lt(magnitude, f32x4.splat(TINY));
  v128.store(scratch + SCALES + 16 * group, v128.andnot(scale, isTiny));
  v128.store(scratch + INVERSES + 16 * group, v128.andnot(inverse, isTiny));
}

/** Of the candidates -9 to 9 without 0, which was the first. */
@inline
function dividend(candidate: i32): f32 {
  return -(32 + <f32>0.1 * <f32>(candidate < 9 ? candidate - 9 : candidate - 8));
}

@inline
function isBetter(sumLX: v128, sumLL: v128, best: v128): v128 {
  const isLarger = f32x4.gt(f32x4.mul(sumLX, sumLX), f32x4.mul(best, sumLL));
  return v128.and(f32x4.gt(sumLL, f32x4.splat(0)), isLarger);
}

/** x * inverse, rounded to an integer within -32 and 31, as F32. */
@inline
function roundCode(x: v128, inverse: v128): v128 {
  const rounded = f32x4.add(f32x4.mul(inverse, x), f32x4.splat(ROUND));
  const bounded = f32x4.pmin(f32x4.pmax(rounded, f32x4.splat(ROUND - 32)), f32x4.splat(ROUND + 31));
  return f32x4.sub(bounded, f32x4.splat(ROUND));
}

/** Codes of a group by the stored scales; those of the fit where the stored scale is 0. */
@inline
function storeCodes(scratch: usize, group: usize, to: usize, scale: f32): void {
  const half = group >> 1;
  const odd = group & 1;
  const stored = to + 192 + 8 * half + odd;
  let scales = f32x4.splat(<f32>load<i8>(stored));
  scales = f32x4.replace_lane(scales, 1, <f32>load<i8>(stored, 2));
  scales = f32x4.replace_lane(scales, 2, <f32>load<i8>(stored, 4));
  scales = f32x4.replace_lane(scales, 3, <f32>load<i8>(stored, 6));
  scales = f32x4.mul(f32x4.splat(scale), scales);
  const isZero = f32x4.eq(scales, f32x4.splat(0));
  const inverse = v128.load(scratch + INVERSES + 16 * group);
  const middle = i32x4.splat(32);
  const low = to + 64 * half + 16 * odd;
  const high = to + 128 + 32 * half + 16 * odd;
  for (let i: usize = 0; i < 16; i++) {
    const x = v128.load(scratch + group * GROUP + 16 * i);
    const rounded = nearestLanes(f32x4.div(x, scales));
    let code = i32x4.min_s(i32x4.splat(31), i32x4.max_s(i32x4.splat(-32), rounded));
    if (v128.any_true(isZero)) {
      const fitted = i32x4.trunc_sat_f32x4_s(roundCode(x, inverse));
      // sub-blocks of zeros have the stored code 0, which is -32
      const kept = v128.bitselect(i32x4.splat(-32), fitted, f32x4.eq(inverse, f32x4.splat(0)));
      code = v128.bitselect(kept, code, isZero);
    }
    code = i32x4.add(code, middle);
    // quarters a, b, c, d of a half: (a, b) in the first word, (c, d) in the second
    const ab = i64x2.extract_lane(code, 0);
    const cd = i64x2.extract_lane(code, 1);
    const nibbles = (ab & 0x0000000f0000000f) | ((cd & 0x0000000f0000000f) << 4);
    store<u8>(low + i, <u8>nibbles);
    store<u8>(low + i, <u8>(nibbles >> 32), 32);
    const upper = ((ab >> 4) & 0x0000000300000003) | (cd & 0x0000003000000030);
    store<u8>(high + i, <u8>(upper | (upper >> 30)));
  }
}
