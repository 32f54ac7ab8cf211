// Encoders of the blocks of 32: `blocks` times 32 F32 numbers at `from`, all finite, become blocks at `to`. Each returns the
// number of the first block whose F16 scale or minimum is infinite, or -1. A vector is four elements of one block, because
// no sum over a block is taken.
//
// Where the scale is so small that its reciprocal is infinite, ggml converts infinities and NaNs to integers, and x86-64
// gives 0 in the lower byte: then every code is 0.
import { halfOf, isInfiniteHalf } from "./numbers";

/** The integer in the last bits after 2^23 is added. */
const WHOLE: f32 = 8388608;

@inline
function largest(v: v128): f32 {
  const pairs = f32x4.pmax(v, v128.shuffle<f32>(v, v, 2, 3, 0, 1));
  return max(f32x4.extract_lane(pairs, 0), f32x4.extract_lane(pairs, 1));
}

@inline
function least(v: v128): f32 {
  const pairs = f32x4.pmin(v, v128.shuffle<f32>(v, v, 2, 3, 0, 1));
  return min(f32x4.extract_lane(pairs, 0), f32x4.extract_lane(pairs, 1));
}

/** Lower bytes of sixteen lanes, all within 0 to 255. */
@inline
function bytesOf(a: v128, b: v128, c: v128, d: v128): v128 {
  return i8x16.narrow_i16x8_u(i16x8.narrow_i32x4_u(a, b), i16x8.narrow_i32x4_u(c, d));
}

export function quantizeQ8_0(from: usize, to: usize, blocks: i32): i32 {
  let infinite = -1;
  for (let block = 0; block < blocks; block++) {
    let most = f32x4.abs(v128.load(from));
    for (let i: usize = 16; i < 128; i += 16) most = f32x4.pmax(most, f32x4.abs(v128.load(from + i)));
    const scale = largest(most) / 127;
    const half = halfOf(scale);
    if (infinite < 0 && isInfiniteHalf(half)) infinite = block;
    store<u16>(to, <u16>half);
    const inverse = inverseOf(scale);
    v128.store(to, roundSixteen(from, inverse), 2);
    v128.store(to, roundSixteen(from + 64, inverse), 18);
    from += 128;
    to += 34;
  }
  return infinite;
}

/** 0 for 0; also 0 where the reciprocal is infinite. */
@inline
function inverseOf(scale: f32): f32 {
  const inverse: f32 = scale == 0 ? 0 : 1 / scale;
  return abs(inverse) == Infinity ? 0 : inverse;
}

@inline
function roundSixteen(from: usize, inverse: f32): v128 {
  const factor = f32x4.splat(inverse);
  const low = i16x8.narrow_i32x4_s(roundAway(from, factor), roundAway(from + 16, factor));
  const high = i16x8.narrow_i32x4_s(roundAway(from + 32, factor), roundAway(from + 48, factor));
  return i8x16.narrow_i16x8_s(low, high);
}

/** Products rounded to the nearest integer, ties away from zero. */
@inline
function roundAway(from: usize, factor: v128): v128 {
  const product = f32x4.mul(v128.load(from), factor);
  const whole = f32x4.trunc(product);
  const rest = f32x4.sub(product, whole); // exact
  const rounded = f32x4.add(whole, f32x4.trunc(f32x4.add(rest, rest)));
  const magic = f32x4.splat(12582912);
  return i32x4.sub(f32x4.add(rounded, magic), magic);
}

export function quantizeQ4_0(from: usize, to: usize, blocks: i32): i32 {
  return symmetric<Four>(from, to, blocks);
}

export function quantizeQ5_0(from: usize, to: usize, blocks: i32): i32 {
  return symmetric<Five>(from, to, blocks);
}

export function quantizeQ4_1(from: usize, to: usize, blocks: i32): i32 {
  return offset<Four>(from, to, blocks);
}

export function quantizeQ5_1(from: usize, to: usize, blocks: i32): i32 {
  return offset<Five>(from, to, blocks);
}

class Four {}
class Five {}

/** The element of largest magnitude becomes the code 0, which stands for -8 or -16. */
@inline
function symmetric<Bits>(from: usize, to: usize, blocks: i32): i32 {
  const middle: f32 = idof<Bits>() == idof<Four>() ? 8 : 16;
  let infinite = -1;
  for (let block = 0; block < blocks; block++) {
    let most = v128.load(from);
    let fewest = most;
    for (let i: usize = 16; i < 128; i += 16) {
      const v = v128.load(from + i);
      most = f32x4.pmax(most, v);
      fewest = f32x4.pmin(fewest, v);
    }
    const scale = outermost(from, largest(most), least(fewest)) / -middle;
    const half = halfOf(scale);
    if (infinite < 0 && isInfiniteHalf(half)) infinite = block;
    store<u16>(to, <u16>half);
    const inverse = inverseOf(scale);
    // a code is 0 only if the reciprocal would be infinite, see above
    const shift: f32 = inverse == 0 && scale != 0 ? 0 : middle + 0.5;
    writeCodes<Bits>(from, to + 2, 0, inverse, shift);
    from += 128;
    to += idof<Bits>() == idof<Four>() ? 18 : 22;
  }
  return infinite;
}

/** Of the largest and the least number of a block the one of larger magnitude; of two equal magnitudes the one that comes first. */
@inline
function outermost(from: usize, most: f32, fewest: f32): f32 {
  if (most > -fewest) return most;
  if (most < -fewest) return fewest;
  if (most == 0) return 0;
  while (abs(load<f32>(from)) != most) from += 4;
  return load<f32>(from);
}

/** The least element becomes the code 0, the largest 15 or 31. */
@inline
function offset<Bits>(from: usize, to: usize, blocks: i32): i32 {
  const steps: f32 = idof<Bits>() == idof<Four>() ? 15 : 31;
  let infinite = -1;
  for (let block = 0; block < blocks; block++) {
    let most = v128.load(from);
    let fewest = most;
    for (let i: usize = 16; i < 128; i += 16) {
      const v = v128.load(from + i);
      most = f32x4.pmax(most, v);
      fewest = f32x4.pmin(fewest, v);
    }
    const minimum = least(fewest);
    const scale = (largest(most) - minimum) / steps;
    const half = halfOf(scale);
    const minimumHalf = halfOf(minimum == 0 ? firstZero(from) : minimum);
    if (infinite < 0 && (isInfiniteHalf(half) || isInfiniteHalf(minimumHalf))) infinite = block;
    store<u16>(to, <u16>half);
    store<u16>(to, <u16>minimumHalf, 2);
    writeCodes<Bits>(from, to + 4, minimum, inverseOf(scale), inverseOf(scale) == 0 ? 0 : 0.5);
    from += 128;
    to += idof<Bits>() == idof<Four>() ? 20 : 24;
  }
  return infinite;
}

/** Of zeros of both signs, ggml stores the sign of the first. */
function firstZero(from: usize): f32 {
  while (load<f32>(from) != 0) from += 4;
  return load<f32>(from);
}

/** trunc((x - minimum) * inverse + shift): low nibbles of sixteen bytes for the first half; before them, of five bits the highest. */
@inline
function writeCodes<Bits>(from: usize, to: usize, minimum: f32, inverse: f32, shift: f32): void {
  const low = sixteenCodes<Bits>(from, minimum, inverse, shift);
  const high = sixteenCodes<Bits>(from + 64, minimum, inverse, shift);
  if (idof<Bits>() == idof<Five>()) {
    const bit = i8x16.splat(16);
    const first = i8x16.bitmask(i16x8.shl(v128.and(low, bit), 3));
    store<u32>(to, first | (i8x16.bitmask(i16x8.shl(v128.and(high, bit), 3)) << 16));
    to += 4;
  }
  const nibble = i8x16.splat(15);
  v128.store(to, v128.or(v128.and(low, nibble), i16x8.shl(v128.and(high, nibble), 4)));
}

@inline
function sixteenCodes<Bits>(from: usize, minimum: f32, inverse: f32, shift: f32): v128 {
  const a = fourCodes<Bits>(from, minimum, inverse, shift);
  const b = fourCodes<Bits>(from + 16, minimum, inverse, shift);
  const c = fourCodes<Bits>(from + 32, minimum, inverse, shift);
  return bytesOf(a, b, c, fourCodes<Bits>(from + 48, minimum, inverse, shift));
}

@inline
function fourCodes<Bits>(from: usize, minimum: f32, inverse: f32, shift: f32): v128 {
  const most = f32x4.splat(idof<Bits>() == idof<Four>() ? 15 : 31);
  const product = f32x4.mul(f32x4.sub(v128.load(from), f32x4.splat(minimum)), f32x4.splat(inverse));
  const code = f32x4.pmin(f32x4.trunc(f32x4.add(product, f32x4.splat(shift))), most);
  return i32x4.sub(f32x4.add(code, f32x4.splat(WHOLE)), f32x4.splat(WHOLE));
}
