// Quantised blocks of ggml to F32, exactly: the values of src/core/blocks/values.ts, sixteen elements at a time.
//
// A block is cut into runs of 16 elements: codes of one byte each, a scale, and in some types a minimum that is
// subtracted. Bytes have any alignment.
import { widenF16 } from "./rounding";

/** The dtypes as compile-time types, in the order of DECODED_BLOCKS: each gets its own loop over blocks. */
class Q4_0 {}
class Q4_1 {}
class Q5_0 {}
class Q5_1 {}
class Q8_0 {}
class IQ4_NL {}
class Q2_K {}
class Q3_K {}
class Q4_K {}
class Q5_K {}
class Q6_K {}
class IQ4_XS {}

@inline
function is<T, U>(): bool {
  return idof<T>() == idof<U>();
}

/** Elements of a block; `type` is the place in DECODED_BLOCKS. */
export function blockElements(type: i32): usize {
  return type < 6 ? 32 : 256;
}

/** Bytes of a block. */
export function blockBytes(type: i32): usize {
  if (type == 0 || type == 5) return 18;
  if (type == 1) return 20;
  if (type == 2) return 22;
  if (type == 3) return 24;
  if (type == 4) return 34;
  if (type == 6) return 84;
  if (type == 7) return 110;
  if (type == 8) return 144;
  if (type == 9) return 176;
  return type == 10 ? 210 : 136;
}

/** The F16 number at `at`, in all lanes. */
@inline
function half(at: usize): v128 {
  return widenF16(i32x4.splat(<i32>load<u16>(at)));
}

@inline
function times(d: v128, integer: i32): v128 {
  return f32x4.mul(d, f32x4.splat(<f32>integer));
}

/** Four products; with `hasMinimum` the minimum is subtracted. Subtracting 0 would turn -0 into 0. */
@inline
function four(codes: v128, scale: v128, minimum: v128, hasMinimum: bool): v128 {
  const product = f32x4.mul(f32x4.convert_i32x4_s(codes), scale);
  return hasMinimum ? f32x4.sub(product, minimum) : product;
}

/** Stores the values of sixteen signed codes as four vectors, `step` bytes apart. */
@inline
function spread(codes: v128, scale: v128, minimum: v128, hasMinimum: bool, to: usize, step: usize): void {
  const low = i16x8.extend_low_i8x16_s(codes);
  const high = i16x8.extend_high_i8x16_s(codes);
  v128.store(to, four(i32x4.extend_low_i16x8_s(low), scale, minimum, hasMinimum));
  v128.store(to + step, four(i32x4.extend_high_i16x8_s(low), scale, minimum, hasMinimum));
  v128.store(to + 2 * step, four(i32x4.extend_low_i16x8_s(high), scale, minimum, hasMinimum));
  v128.store(to + 3 * step, four(i32x4.extend_high_i16x8_s(high), scale, minimum, hasMinimum));
}

@inline
function lowNibbles(bytes: v128): v128 {
  return v128.and(bytes, i8x16.splat(15));
}

@inline
function highNibbles(bytes: v128): v128 {
  return v128.and(i16x8.shr_u(bytes, 4), i8x16.splat(15));
}

/** `mask` of each byte after a shift to the right; shifts of words are faster, and the mask drops what crosses over. */
@inline
function bitsAt(bytes: v128, shift: i32, mask: i8): v128 {
  return v128.and(i16x8.shr_u(bytes, shift), i8x16.splat(mask));
}

/** 16 in each byte whose bit in `bits` is set: byte i has bit i. */
@inline
function fifthBits(bits: i32): v128 {
  const bytes = i8x16.swizzle(i32x4.splat(bits), i8x16(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1));
  const own = i8x16(1, 2, 4, 8, 16, 32, 64, -128, 1, 2, 4, 8, 16, 32, 64, -128);
  return v128.and(i8x16.eq(v128.and(bytes, own), own), i8x16.splat(16));
}

/** The values that codes of IQ4_NL and IQ4_XS select. */
@inline
function iq4(codes: v128): v128 {
  return i8x16.swizzle(
    i8x16(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113),
    codes,
  );
}

/** Blocks of 32 elements: one scale, codes of four, five or eight bits. */
@inline
function shortBlock<T>(from: usize, to: usize, step: usize): void {
  const hasMinimum = is<T, Q4_1>() || is<T, Q5_1>();
  const scale = half(from);
  const minimum = hasMinimum ? f32x4.neg(half(from + 2)) : scale; // the type adds its minimum
  let at = from + (hasMinimum ? 4 : 2);
  let low: v128;
  let high: v128;
  if (is<T, Q8_0>()) {
    low = v128.load(at);
    high = v128.load(at, 16);
  } else {
    const fifths = is<T, Q5_0>() || is<T, Q5_1>();
    const bits = fifths ? load<i32>(at) : 0;
    if (fifths) at += 4;
    const bytes = v128.load(at);
    low = lowNibbles(bytes);
    high = highNibbles(bytes);
    if (fifths) {
      low = v128.or(low, fifthBits(bits));
      high = v128.or(high, fifthBits(bits >> 16));
    }
    if (is<T, IQ4_NL>()) {
      low = iq4(low);
      high = iq4(high);
    }
    if (is<T, Q4_0>() || is<T, Q5_0>()) {
      const zero = i8x16.splat(is<T, Q4_0>() ? 8 : 16);
      low = i8x16.sub(low, zero);
      high = i8x16.sub(high, zero);
    }
  }
  spread(low, scale, minimum, hasMinimum, to, step);
  spread(high, scale, minimum, hasMinimum, to + 4 * step, step);
}

/** Q4_K and Q5_K: eight runs of 32, whose scales and minimums of six bits are packed in twelve bytes. */
@inline
function sixBitBlock<T>(from: usize, to: usize, step: usize): void {
  const d = half(from);
  const m = half(from + 2);
  const packed = from + 4;
  const highs = from + 16; // of Q5_K: a byte for each place in a run of 32, a bit for each run
  const codes = is<T, Q5_K>() ? from + 48 : from + 16;
  for (let j = 0; j < 8; j++) {
    const s = packed + <usize>j;
    const scale =
      j < 4 ? load<u8>(s) & 63 : (load<u8>(s, 4) & 15) | ((load<u8>(s - 4) >> 6) << 4);
    const minimum = j < 4 ? load<u8>(s, 4) & 63 : (load<u8>(s, 4) >> 4) | ((load<u8>(s) >> 6) << 4);
    const D = times(d, scale);
    const M = times(m, minimum);
    for (let place: usize = 0; place < 32; place += 16) {
      const bytes = v128.load(codes + ((<usize>(j >> 1)) << 5) + place);
      let run = bitsAt(bytes, (j & 1) << 2, 15);
      if (is<T, Q5_K>()) run = v128.or(run, i16x8.shl(bitsAt(v128.load(highs + place), j, 1), 4));
      spread(run, D, M, true, to, step);
      to += 4 * step;
    }
  }
}

/** Q6_K: per half of 128, four runs of 32 with the same places: four low bits in 64 bytes, two high bits in 32. */
@inline
function q6Block(from: usize, to: usize, step: usize): void {
  const d = half(from + 208);
  for (let j = 0; j < 16; j++) {
    const quarter = (j >> 1) & 3;
    const place = (<usize>(j & 1)) << 4;
    const second = <usize>(j >> 3);
    const bytes = v128.load(from + (second << 6) + ((<usize>(quarter & 1)) << 5) + place);
    const pairs = v128.load(from + 128 + (second << 5) + place);
    const low = bitsAt(bytes, (quarter & 2) << 1, 15);
    const high = i16x8.shl(bitsAt(pairs, 2 * quarter, 3), 4);
    const codes = i8x16.sub(v128.or(low, high), i8x16.splat(32));
    spread(codes, times(d, <i32>load<i8>(from + 192 + <usize>j)), d, false, to, step);
    to += 4 * step;
  }
}

/** Q2_K and Q3_K: runs of 16; per half of 128, bytes of four codes of two bits for places 32 apart. */
@inline
function twoBitBlock<T>(from: usize, to: usize, step: usize): void {
  const d = half(from + (is<T, Q2_K>() ? 80 : 108));
  const m = is<T, Q2_K>() ? half(from + 82) : d;
  for (let j = 0; j < 16; j++) {
    const place = (<usize>(j & 1)) << 4;
    const bytes = v128.load(from + (is<T, Q2_K>() ? 16 : 32) + ((<usize>(j >> 3)) << 5) + place);
    let codes = bitsAt(bytes, j & 6, 3);
    if (is<T, Q2_K>()) {
      const packed = <i32>load<u8>(from + <usize>j);
      spread(codes, times(d, packed & 15), times(m, packed >> 4), true, to, step);
    } else {
      // A mask bit for each run of 32: 4 is subtracted where it is not set.
      const mask = bitsAt(v128.load(from + place), j >> 1, 1);
      codes = i8x16.sub(v128.or(codes, i16x8.shl(mask, 2)), i8x16.splat(4));
      const low = (<i32>load<u8>(from + 96 + <usize>(j & 7)) >> (4 * (j >> 3))) & 15;
      const high = (<i32>load<u8>(from + 104 + <usize>(j & 3)) >> (2 * (j >> 2))) & 3;
      spread(codes, times(d, (low | (high << 4)) - 32), d, false, to, step);
    }
    to += 4 * step;
  }
}

/** IQ4_XS: eight runs of 32 as in IQ4_NL, each with a scale of six bits. */
@inline
function iq4Block(from: usize, to: usize, step: usize): void {
  const d = half(from);
  const highs = <i32>load<u16>(from + 2);
  for (let j = 0; j < 8; j++) {
    const low = (<i32>load<u8>(from + 4 + <usize>(j >> 1)) >> (4 * (j & 1))) & 15;
    const scale = times(d, (low | (((highs >> (2 * j)) & 3) << 4)) - 32);
    const bytes = v128.load(from + 8 + ((<usize>j) << 4));
    spread(iq4(lowNibbles(bytes)), scale, d, false, to, step);
    spread(iq4(highNibbles(bytes)), scale, d, false, to + 4 * step, step);
    to += 8 * step;
  }
}

@inline
function decodeAs<T>(type: i32, from: usize, count: i32, to: usize, step: usize): void {
  const elements = blockElements(type);
  const bytes = blockBytes(type);
  const end = to + ((<usize>count) >> 2) * step;
  for (; to != end; from += bytes, to += (elements >> 2) * step) {
    if (is<T, Q4_K>() || is<T, Q5_K>()) sixBitBlock<T>(from, to, step);
    else if (is<T, Q2_K>() || is<T, Q3_K>()) twoBitBlock<T>(from, to, step);
    else if (is<T, Q6_K>()) q6Block(from, to, step);
    else if (is<T, IQ4_XS>()) iq4Block(from, to, step);
    else shortBlock<T>(from, to, step);
  }
}

/**
 * Decodes `count` elements, whole blocks, into vectors of four, `step` bytes apart.
 *
 * @param type place in DECODED_BLOCKS
 */
export function decodeBlocks(type: i32, from: usize, count: i32, to: usize, step: usize): void {
  if (type == 0) decodeAs<Q4_0>(type, from, count, to, step);
  else if (type == 1) decodeAs<Q4_1>(type, from, count, to, step);
  else if (type == 2) decodeAs<Q5_0>(type, from, count, to, step);
  else if (type == 3) decodeAs<Q5_1>(type, from, count, to, step);
  else if (type == 4) decodeAs<Q8_0>(type, from, count, to, step);
  else if (type == 5) decodeAs<IQ4_NL>(type, from, count, to, step);
  else if (type == 6) decodeAs<Q2_K>(type, from, count, to, step);
  else if (type == 7) decodeAs<Q3_K>(type, from, count, to, step);
  else if (type == 8) decodeAs<Q4_K>(type, from, count, to, step);
  else if (type == 9) decodeAs<Q5_K>(type, from, count, to, step);
  else if (type == 10) decodeAs<Q6_K>(type, from, count, to, step);
  else decodeAs<IQ4_XS>(type, from, count, to, step);
}
