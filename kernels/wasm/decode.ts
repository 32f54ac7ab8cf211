// Stored elements to F32, exactly: subnormals, infinities and NaNs included. Exponents are re-biased as integers.
import { loadPart } from "./lanes";

/** The dtypes as types of the compiler, so that each gets loops of its own: branches inside cost more than decoding. */
class F32 {}
class F16 {}
class BF16 {}
class F8_E4M3 {}
class F8_E5M2 {}

/** log2 of the bytes of an element */
@inline
export function widthShift(dtype: i32): usize {
  return dtype == 0 ? 2 : dtype <= 2 ? 1 : 0;
}

@inline
function is<T, U>(): bool {
  return idof<T>() == idof<U>();
}

@inline
function width<T>(): usize {
  return is<T, F32>() ? 4 : is<T, F16>() || is<T, BF16>() ? 2 : 1;
}

/** Four codes as 32-bit integers. */
@inline
function codes<T>(at: usize): v128 {
  if (is<T, F32>()) return v128.load(at);
  if (width<T>() == 2) return v128.load16x4_u(at);
  return i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(v128.load32_zero(at)));
}

@inline
function code<T>(at: usize): i32 {
  return width<T>() == 2 ? <i32>load<u16>(at) : <i32>load<u8>(at);
}

/** The first `count` (1 to 3) codes; nothing beyond them is read. */
@inline
function codesPart<T>(at: usize, count: i32): v128 {
  if (is<T, F32>()) return loadPart(at, count);
  let v = i32x4.splat(0);
  v = i32x4.replace_lane(v, 0, code<T>(at));
  if (count > 1) v = i32x4.replace_lane(v, 1, code<T>(at + width<T>()));
  if (count > 2) v = i32x4.replace_lane(v, 2, code<T>(at + 2 * width<T>()));
  return v;
}

/**
 * F16: five exponent bits, biased by 15. Numbers are re-biased by adding 112 to the exponent, infinities and NaNs by
 * adding it twice. A subnormal m * 2^-24 is read as the number 2^-14 (1 + m / 2^10), from which 2^-14 is taken again.
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

/** F8_E4M3 (OCP, no infinities): four exponent bits, biased by 7; the code of all ones is the NaN. */
@inline
function fromE4M3(code: v128): v128 {
  const magnitude = i32x4.shl(v128.and(code, i32x4.splat(0x7f)), 20);
  const sign = i32x4.shl(v128.and(code, i32x4.splat(0x80)), 24);
  const normal = i32x4.add(magnitude, i32x4.splat(120 << 23));
  const tiny = f32x4.sub(i32x4.add(magnitude, i32x4.splat(121 << 23)), i32x4.splat(121 << 23));
  const isTiny = i32x4.lt_s(magnitude, i32x4.splat(1 << 23));
  const nan = v128.and(i32x4.eq(magnitude, i32x4.splat(0x7f << 20)), i32x4.splat(0x7fc00000));
  return v128.or(v128.or(sign, nan), v128.bitselect(tiny, normal, isTiny));
}

@inline
function values<T>(codes: v128): v128 {
  if (is<T, F32>()) return codes;
  if (is<T, BF16>()) return i32x4.shl(codes, 16);
  if (is<T, F16>()) return fromF16(codes);
  if (is<T, F8_E4M3>()) return fromE4M3(codes);
  return fromF16(i32x4.shl(codes, 8)); // F8_E5M2 is the upper half of an F16
}

function decodeAs<T>(from: usize, count: i32, to: usize, step: usize): void {
  if (count >= 4) {
    const end = to + <usize>(count >> 2) * step;
    do {
      v128.store(to, values<T>(codes<T>(from)));
      from += 4 * width<T>();
      to += step;
    } while (to != end);
  }
  if (count & 3) v128.store(to, values<T>(codesPart<T>(from, count & 3)));
}

/**
 * Decodes `count` elements into vectors of four, `step` bytes apart; the lanes behind the last element are zero.
 *
 * @param dtype index in STORED of kernels/define.ts
 */
export function decode(dtype: i32, from: usize, count: i32, to: usize, step: usize): void {
  if (dtype == 0) decodeAs<F32>(from, count, to, step);
  else if (dtype == 1) decodeAs<F16>(from, count, to, step);
  else if (dtype == 2) decodeAs<BF16>(from, count, to, step);
  else if (dtype == 3) decodeAs<F8_E4M3>(from, count, to, step);
  else decodeAs<F8_E5M2>(from, count, to, step);
}
