// Stored elements to F32, exactly: subnormals, infinities and NaNs included. Exponents are re-biased as integers.
//
// The code works on sixteen bytes at a time. FP8 becomes BF16 first, which holds every FP8 value: one vector of upper
// bytes and one of lower bytes. A code without its sign is shifted to the exponent and mantissa of BF16, and the
// difference of the biases is added. Codes below 16, which include the subnormals, also get a correction from a table.
import { blockBytes, blockElements, decodeBlocks } from "./decode-blocks";

/** Dtypes before this number are single numbers, the others blocks in the order of DECODED_BLOCKS. */
const FIRST_BLOCK = 5;

/** The dtypes as compile-time types. Each gets its own loops: a branch inside a loop costs more than the decoding. */
class F32 {}
class F16 {}
class BF16 {}
class F8_E4M3 {}
class F8_E5M2 {}

/** Elements that are stored together. */
export function unitElements(dtype: i32): usize {
  return dtype < FIRST_BLOCK ? 1 : blockElements(dtype - FIRST_BLOCK);
}

/** Bytes of `elements`, which are whole blocks. */
export function storedBytes(dtype: i32, elements: usize): usize {
  if (dtype < FIRST_BLOCK) return elements << (dtype == 0 ? 2 : dtype <= 2 ? 1 : 0);
  const block = dtype - FIRST_BLOCK;
  return (elements / blockElements(block)) * blockBytes(block);
}

@inline
function is<T, U>(): bool {
  return idof<T>() == idof<U>();
}

/** Vectors of four floats that sixteen bytes decode to. */
@inline
function vectors<T>(): i32 {
  return is<T, F32>() ? 1 : is<T, F16>() || is<T, BF16>() ? 2 : 4;
}

/**
 * F16: five exponent bits, biased by 15. Numbers are re-biased by adding 112 to the exponent, infinities and NaNs by
 * adding it twice. A subnormal m * 2^-24 is read as the number 2^-14 (1 + m / 2^10); then 2^-14 is subtracted.
 */
@inline
function fromF16(code: v128): v128 {
  const magnitude = i32x4.shl(v128.and(code, i32x4.splat(0x7fff)), 13);
  const sign = i32x4.shl(v128.and(code, i32x4.splat(0x8000)), 16);
  const bias = i32x4.splat(112 << 23);
  const normal = i32x4.add(magnitude, bias);
  const special = v128.and(i32x4.ge_s(magnitude, i32x4.splat(31 << 23)), bias);
  const tiny = f32x4.sub(i32x4.add(magnitude, i32x4.splat(113 << 23)), i32x4.splat(113 << 23));
  const isTiny = i32x4.lt_s(magnitude, i32x4.splat(1 << 23));
  return v128.or(sign, v128.bitselect(tiny, i32x4.add(normal, special), isTiny));
}

/** The upper bytes of sixteen FP8 codes as BF16. */
@inline
function upper<T>(codes: v128): v128 {
  const magnitude = v128.and(codes, i8x16.splat(0x7f));
  const sign = v128.and(codes, i8x16.splat(-0x80));
  if (is<T, F8_E4M3>()) {
    // Four exponent bits, biased by 7: 120 more in BF16, whose lowest exponent bit lies in the lower byte.
    const exponent = i8x16.add(v128.and(i16x8.shr_u(magnitude, 4), i8x16.splat(7)), i8x16.splat(0x3c));
    const missing = i8x16(-60, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    // E4M3 has one NaN and no infinities.
    const nan = v128.and(i8x16.eq(magnitude, i8x16.splat(0x7f)), i8x16.splat(0x7f));
    const number = i8x16.add(exponent, i8x16.swizzle(missing, magnitude));
    return v128.or(v128.or(number, nan), sign);
  }
  // Five exponent bits, biased by 15: 112 more in BF16, and 112 again for infinity and NaNs.
  const exponent = i8x16.add(v128.and(i16x8.shr_u(magnitude, 3), i8x16.splat(15)), i8x16.splat(0x38));
  const missing = i8x16(-56, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  const special = v128.and(i8x16.gt_s(magnitude, i8x16.splat(0x7b)), i8x16.splat(0x38));
  return v128.or(i8x16.add(i8x16.add(exponent, i8x16.swizzle(missing, magnitude)), special), sign);
}

/** The lower bytes of sixteen FP8 codes as BF16. */
@inline
function lower<T>(codes: v128): v128 {
  const magnitude = v128.and(codes, i8x16.splat(0x7f));
  if (is<T, F8_E4M3>()) {
    const mantissa = v128.and(i16x8.shl(codes, 4), i8x16.splat(-16));
    const missing = i8x16(0, -16, 96, -112, -64, -48, -32, -16, 0, 0, 0, 0, 0, 0, 0, 0);
    return i8x16.add(mantissa, i8x16.swizzle(missing, magnitude));
  }
  const mantissa = v128.and(i16x8.shl(codes, 5), i8x16.splat(-32));
  const missing = i8x16(0, 96, -64, -32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  return i8x16.add(mantissa, i8x16.swizzle(missing, magnitude));
}

/** Eight 16-bit words as F32: [0] words 0 to 3, [1] words 4 to 7; the word is the upper half of each lane. */
@inline
function lowWords(words: v128): v128 {
  return v128.shuffle<i16>(i16x8.splat(0), words, 0, 8, 1, 9, 2, 10, 3, 11);
}

@inline
function highWords(words: v128): v128 {
  return v128.shuffle<i16>(i16x8.splat(0), words, 4, 12, 5, 13, 6, 14, 7, 15);
}

/** Decodes sixteen bytes and stores the first `count` vectors of the result, `step` bytes apart. */
@inline
function spread<T>(bytes: v128, to: usize, step: usize, count: i32): void {
  if (is<T, F32>()) {
    v128.store(to, bytes);
  } else if (is<T, F16>()) {
    v128.store(to, fromF16(i32x4.extend_low_i16x8_u(bytes)));
    if (count > 1) v128.store(to + step, fromF16(i32x4.extend_high_i16x8_u(bytes)));
  } else if (is<T, BF16>()) {
    v128.store(to, lowWords(bytes));
    if (count > 1) v128.store(to + step, highWords(bytes));
  } else {
    const high = upper<T>(bytes);
    const low = lower<T>(bytes);
    const first = v128.shuffle<i8>(low, high, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const second = v128.shuffle<i8>(low, high, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    v128.store(to, lowWords(first));
    if (count > 1) v128.store(to + step, highWords(first));
    if (count > 2) v128.store(to + 2 * step, lowWords(second));
    if (count > 3) v128.store(to + 3 * step, highWords(second));
  }
}

/** The first `bytes` (0 to 15) bytes at `at`, the others zero. Reads no byte after them. */
function loadBytes(at: usize, bytes: usize): v128 {
  let low: i64 = 0;
  let high: i64 = 0;
  for (let i: usize = 0; i < bytes; i++) {
    const byte = <i64>load<u8>(at + i);
    if (i < 8) low |= byte << (<i64>i << 3);
    else high |= byte << (<i64>(i - 8) << 3);
  }
  return i64x2.replace_lane(i64x2.splat(low), 1, high);
}

function decodeAs<T>(from: usize, count: i32, to: usize, step: usize): void {
  const each = 4 * vectors<T>();
  if (count >= each) {
    const end = from + ((<usize>(count / each)) << 4);
    do {
      spread<T>(v128.load(from), to, step, vectors<T>());
      from += 16;
      to += <usize>vectors<T>() * step;
    } while (from != end);
  }
  const left = count % each;
  if (left > 0) spread<T>(loadBytes(from, <usize>(left << 2) / <usize>vectors<T>()), to, step, (left + 3) >> 2);
}

/** Decodes five rows, `stride` bytes apart, into [vectors, 5 rows, 4]. Five reads in parallel use the caches better. */
function fiveAs<T>(from: usize, stride: usize, rows: i32, count: i32, to: usize): void {
  const r1 = from + (rows > 1 ? stride : 0);
  const r2 = r1 + (rows > 2 ? stride : 0);
  const r3 = r2 + (rows > 3 ? stride : 0);
  const r4 = r3 + (rows > 4 ? stride : 0);
  const each = 4 * vectors<T>();
  const whole = (<usize>(count / each)) << 4;
  let at: usize = 0;
  while (at != whole) {
    spread<T>(v128.load(from + at), to, 80, vectors<T>());
    spread<T>(v128.load(r1 + at), to + 16, 80, vectors<T>());
    spread<T>(v128.load(r2 + at), to + 32, 80, vectors<T>());
    spread<T>(v128.load(r3 + at), to + 48, 80, vectors<T>());
    spread<T>(v128.load(r4 + at), to + 64, 80, vectors<T>());
    at += 16;
    to += 80 * <usize>vectors<T>();
  }
  const left = count % each;
  if (left == 0) return;
  const bytes = <usize>(left << 2) / <usize>vectors<T>();
  const vectorsLeft = (left + 3) >> 2;
  spread<T>(loadBytes(from + at, bytes), to, 80, vectorsLeft);
  spread<T>(loadBytes(r1 + at, bytes), to + 16, 80, vectorsLeft);
  spread<T>(loadBytes(r2 + at, bytes), to + 32, 80, vectorsLeft);
  spread<T>(loadBytes(r3 + at, bytes), to + 48, 80, vectorsLeft);
  spread<T>(loadBytes(r4 + at, bytes), to + 64, 80, vectorsLeft);
}

/**
 * Decodes `count` elements of up to five rows into [vectors, 5 rows, 4]. With fewer than five rows the last one is
 * repeated.
 */
export function decodeFive(dtype: i32, from: usize, stride: usize, rows: i32, count: i32, to: usize): void {
  if (dtype == 0) fiveAs<F32>(from, stride, rows, count, to);
  else if (dtype == 1) fiveAs<F16>(from, stride, rows, count, to);
  else if (dtype == 2) fiveAs<BF16>(from, stride, rows, count, to);
  else if (dtype == 3) fiveAs<F8_E4M3>(from, stride, rows, count, to);
  else if (dtype == 4) fiveAs<F8_E5M2>(from, stride, rows, count, to);
  else {
    for (let row = 0; row < 5; row++, to += 16) {
      decodeBlocks(dtype - FIRST_BLOCK, from, count, to, 80);
      if (row + 1 < rows) from += stride;
    }
  }
}

/**
 * Decodes `count` elements into vectors of four, `step` bytes apart; the lanes after the last element are zero.
 * `from` is the first byte of a block, and `count` whole blocks.
 *
 * @param dtype index in STORED_DTYPES of kernels/kernel.ts
 */
export function decode(dtype: i32, from: usize, count: i32, to: usize, step: usize): void {
  if (dtype == 0) decodeAs<F32>(from, count, to, step);
  else if (dtype == 1) decodeAs<F16>(from, count, to, step);
  else if (dtype == 2) decodeAs<BF16>(from, count, to, step);
  else if (dtype == 3) decodeAs<F8_E4M3>(from, count, to, step);
  else if (dtype == 4) decodeAs<F8_E5M2>(from, count, to, step);
  else decodeBlocks(dtype - FIRST_BLOCK, from, count, to, step);
}
