// Encoders of Q4_K and Q5_K: a block of 256 has eight sub-blocks with a scale and a minimum each. As in ggml, both are
// fitted: the numbers are rounded with some candidates for the scale, each time the best scale and minimum for these codes
// follow by weighted least squares, and the smallest weighted error wins.
//
// The lanes of a vector are four sub-blocks: element i of the four is vector i.
import { halfOf, isInfiniteHalf, nearest, nearestLanes, ROUND, transpose, valueOfHalf } from "./numbers";

/** Bytes of a vector for each element of four sub-blocks. */
const GROUP: usize = 512;
/** Offsets in the scratch memory: the numbers of both groups, the weights and codes of one, and results per sub-block. */
const WEIGHTS: usize = 1024;
const CODES: usize = 1536;
const SCALES: usize = 2048;
/** of the sub-blocks, with the sign changed */
const MINIMA: usize = 2080;
/** With these two the codes of the best fit are computed again: code = (x - start) * inverse, rounded. */
const INVERSES: usize = 2112;
const STARTS: usize = 2144;
/** The packed scales and minima, a byte each. */
const STORED: usize = 2176;

class Four {}
class Five {}

/** @returns number of the first block whose scale or minimum is infinite, or -1; `scratch` has 2192 bytes, aligned to 16 */
export function quantizeQ4_K(from: usize, to: usize, blocks: i32, scratch: usize): i32 {
  return encode<Four>(from, to, blocks, scratch);
}

export function quantizeQ5_K(from: usize, to: usize, blocks: i32, scratch: usize): i32 {
  return encode<Five>(from, to, blocks, scratch);
}

function encode<Bits>(from: usize, to: usize, blocks: i32, scratch: usize): i32 {
  const isFour = idof<Bits>() == idof<Four>();
  let infinite = -1;
  for (let block = 0; block < blocks; block++) {
    for (let group: usize = 0; group < 2; group++) {
      const numbers = scratch + group * GROUP;
      for (let i: usize = 0; i < 128; i += 16) transpose(from + group * 512 + i, 128, numbers + 4 * i);
      if (isFour) fit(numbers, scratch, group, 15, -1, 21);
      else fit(numbers, scratch, group, 31, -0.5, 16);
    }
    if (storeScales(scratch, to) && infinite < 0) infinite = block;
    if (!isFour) memory.fill(to + 16, 0, 32);
    for (let group: usize = 0; group < 2; group++) {
      storeCodes<Bits>(scratch, group, to + 16, valueOfHalf(load<u16>(to)), valueOfHalf(load<u16>(to, 2)));
    }
    from += 1024;
    to += isFour ? 144 : 176;
  }
  return infinite;
}

/**
 * Fits scale and minimum of four sub-blocks.
 *
 * @param numbers    their 32 vectors
 * @param steps      largest code
 * @param offset     the first candidate divides the range into `steps` + `offset` steps, each next one into 0.1 more
 */
@inline
function fit(numbers: usize, scratch: usize, group: usize, steps: f32, offset: f32, candidates: i32): void {
  const weights = scratch + WEIGHTS;
  const codes = scratch + CODES;
  let squares = f32x4.splat(0);
  let least = v128.load(numbers);
  let most = least;
  for (let i: usize = 0; i < GROUP; i += 16) {
    const x = v128.load(numbers + i);
    squares = f32x4.add(squares, f32x4.mul(x, x));
    least = f32x4.pmin(least, x);
    most = f32x4.pmax(most, x);
  }
  least = f32x4.pmin(least, f32x4.splat(0));
  const mean = f32x4.sqrt(f32x4.div(squares, f32x4.splat(32)));
  let sumW = f32x4.splat(0);
  let sumX = sumW;
  for (let i: usize = 0; i < GROUP; i += 16) {
    const x = v128.load(numbers + i);
    const w = f32x4.add(mean, f32x4.abs(x));
    v128.store(weights + i, w);
    sumW = f32x4.add(sumW, w);
    sumX = f32x4.add(sumX, f32x4.mul(w, x));
  }

  const flat = f32x4.eq(most, least);
  const top = f32x4.splat(ROUND + steps);
  const first = f32x4.div(f32x4.splat(steps), f32x4.sub(most, least));
  let inverse = finiteOr0(first);
  let scale = f32x4.div(f32x4.splat(1), first);
  let minimum = least;
  let start = least;
  let error = f32x4.splat(0);
  for (let i: usize = 0; i < GROUP; i += 16) {
    const x = v128.load(numbers + i);
    const code = roundCode(x, start, inverse, top);
    const e = f32x4.sub(f32x4.add(f32x4.mul(scale, code), minimum), x);
    error = f32x4.add(error, f32x4.mul(v128.load(weights + i), f32x4.mul(e, e)));
  }

  for (let candidate = 0; candidate < candidates; candidate++) {
    const divided: f32 = offset + <f32>0.1 * <f32>candidate + steps;
    const tried = finiteOr0(f32x4.div(f32x4.splat(divided), f32x4.sub(most, minimum)));
    let sumL = f32x4.splat(0);
    let sumLL = sumL;
    let sumLX = sumL;
    let i: usize = 0;
    do {
      const x = v128.load(numbers + i);
      const code = roundCode(x, minimum, tried, top);
      v128.store(codes + i, code);
      const weighted = f32x4.mul(v128.load(weights + i), code);
      sumL = f32x4.add(sumL, weighted);
      sumLL = f32x4.add(sumLL, f32x4.mul(weighted, code));
      sumLX = f32x4.add(sumLX, f32x4.mul(weighted, x));
      i += 16;
    } while (i != GROUP);
    const determinant = f32x4.sub(f32x4.mul(sumW, sumLL), f32x4.mul(sumL, sumL));
    const slope = f32x4.div(f32x4.sub(f32x4.mul(sumW, sumLX), f32x4.mul(sumX, sumL)), determinant);
    const at = f32x4.div(f32x4.sub(f32x4.mul(sumLL, sumX), f32x4.mul(sumL, sumLX)), determinant);
    // a minimum above 0 is not stored: the best line through 0
    const positive = f32x4.gt(at, f32x4.splat(0));
    const newScale = v128.bitselect(f32x4.div(sumLX, sumLL), slope, positive);
    const newMinimum = v128.andnot(at, positive);
    let newError = f32x4.splat(0);
    i = 0;
    do {
      const e = f32x4.sub(
        f32x4.add(f32x4.mul(newScale, v128.load(codes + i)), newMinimum),
        v128.load(numbers + i),
      );
      newError = f32x4.add(newError, f32x4.mul(v128.load(weights + i), f32x4.mul(e, e)));
      i += 16;
    } while (i != GROUP);
    const better = v128.and(f32x4.gt(determinant, f32x4.splat(0)), f32x4.lt(newError, error));
    inverse = v128.bitselect(tried, inverse, better);
    start = v128.bitselect(minimum, start, better);
    scale = v128.bitselect(newScale, scale, better);
    minimum = v128.bitselect(newMinimum, minimum, better);
    error = v128.bitselect(newError, error, better);
  }

  const results = scratch + group * 16;
  v128.store(results + SCALES, v128.andnot(scale, flat));
  v128.store(results + MINIMA, f32x4.neg(v128.bitselect(least, minimum, flat)));
  v128.store(results + INVERSES, v128.andnot(inverse, flat));
  v128.store(results + STARTS, v128.andnot(start, flat));
}

/** 0 for infinities: with an infinite factor, ggml's integers of infinities and NaNs end as the code 0. */
@inline
function finiteOr0(v: v128): v128 {
  return v128.and(v, f32x4.lt(f32x4.abs(v), f32x4.splat(Infinity)));
}

/** (x - start) * inverse, rounded to an integer within 0 and the largest code, as F32; `top` is that code plus ROUND. */
@inline
function roundCode(x: v128, start: v128, inverse: v128, top: v128): v128 {
  const round = f32x4.splat(ROUND);
  const rounded = f32x4.add(f32x4.mul(inverse, f32x4.sub(x, start)), round);
  return f32x4.sub(f32x4.pmin(f32x4.pmax(rounded, round), top), round);
}

/** Writes d, dmin and the packed six-bit scales and minima. @returns whether d or dmin is infinite */
@inline
function storeScales(scratch: usize, to: usize): bool {
  let mostScale: f32 = 0;
  let mostMinimum: f32 = 0;
  for (let at = scratch + SCALES; at < scratch + MINIMA; at += 4) {
    const scale = load<f32>(at);
    const minimum = load<f32>(at, MINIMA - SCALES);
    if (scale > mostScale) mostScale = scale;
    if (minimum > mostMinimum) mostMinimum = minimum;
  }
  const half = halfOf(mostScale / 63);
  const minimumHalf = halfOf(mostMinimum / 63);
  store<u16>(to, <u16>half);
  store<u16>(to, <u16>minimumHalf, 2);
  const perScale: f32 = mostScale > 0 ? 63 / mostScale : 0;
  const perMinimum: f32 = mostMinimum > 0 ? 63 / mostMinimum : 0;
  for (let i: usize = 0; i < 8; i++) {
    const at = scratch + SCALES + 4 * i;
    store<u8>(scratch + STORED + i, sixBits(perScale * load<f32>(at)));
    store<u8>(scratch + STORED + 8 + i, sixBits(perMinimum * load<f32>(at, MINIMA - SCALES)));
  }
  // The first four scales and minima keep their six bits; the others lie in nibbles, with their upper bits above those.
  for (let i: usize = 0; i < 4; i++) {
    const s = scratch + STORED + i;
    store<u8>(to + i, load<u8>(s) | ((load<u8>(s, 4) >> 4) << 6), 4);
    store<u8>(to + i, load<u8>(s, 8) | ((load<u8>(s, 12) >> 4) << 6), 8);
    store<u8>(to + i, (load<u8>(s, 4) & 15) | ((load<u8>(s, 12) & 15) << 4), 12);
  }
  return isInfiniteHalf(half) || isInfiniteHalf(minimumHalf);
}

/** ggml takes the lowest byte of the integer: below 0 it becomes 63. */
@inline
function sixBits(value: f32): u8 {
  return <u8>min(63, nearest(value) & 0xff);
}

/** Codes of four sub-blocks by the stored scale and minimum; those of the fit where the stored scale is 0. */
@inline
function storeCodes<Bits>(scratch: usize, group: usize, to: usize, scale: f32, minimum: f32): void {
  const isFour = idof<Bits>() == idof<Four>();
  const stored = scratch + STORED + 4 * group;
  const scales = f32x4.mul(f32x4.splat(scale), f32x4.convert_i32x4_u(fourBytes(stored)));
  const minima = f32x4.mul(f32x4.splat(minimum), f32x4.convert_i32x4_u(fourBytes(stored + 8)));
  const isZero = f32x4.eq(scales, f32x4.splat(0));
  const inverse = v128.load(scratch + INVERSES + 16 * group);
  const start = v128.load(scratch + STARTS + 16 * group);
  const most = i32x4.splat(isFour ? 15 : 31);
  const top = f32x4.splat(ROUND + <f32>(isFour ? 15 : 31));
  const numbers = scratch + group * GROUP;
  let at = to + group * 64 + (isFour ? 0 : 32);
  for (let i: usize = 0; i < 32; i++) {
    const x = v128.load(numbers + 16 * i);
    const rounded = nearestLanes(f32x4.div(f32x4.add(x, minima), scales));
    let code = i32x4.max_s(i32x4.splat(0), i32x4.min_s(most, rounded));
    if (v128.any_true(isZero)) {
      const fitted = i32x4.trunc_sat_f32x4_u(roundCode(x, start, inverse, top));
      code = v128.bitselect(fitted, code, isZero);
    }
    if (!isFour) {
      const highest = i32x4.bitmask(i32x4.gt_s(code, i32x4.splat(15)));
      store<u8>(to + i, load<u8>(to + i) | (highest << (4 * <i32>group)));
      code = v128.and(code, i32x4.splat(15));
    }
    const pairs = v128.or(code, i64x2.shr_u(code, 28));
    v128.store8_lane(at, pairs, 0);
    v128.store8_lane(at, pairs, 8, 32);
    at++;
  }
}

@inline
function fourBytes(at: usize): v128 {
  return i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(v128.load32_zero(at)));
}
