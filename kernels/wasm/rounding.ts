// Widening and rounding of vectors. Not exported to the host: vectors cannot cross that border.

/** An F16 shifted into the fields of F32 is 2^112 times too small, subnormals included: one exact product corrects it. */
export function widenF16(v: v128): v128 {
  const magnitude = v128.and(v, i32x4.splat(0x7fff));
  const moved = i32x4.shl(magnitude, 13);
  const number = f32x4.mul(moved, f32x4.splat(reinterpret<f32>((127 + 112) << 23)));
  const top = v128.or(moved, i32x4.splat(0x7f800000)); // infinity, or NaN with its payload
  const value = v128.bitselect(top, number, i32x4.ge_s(magnitude, i32x4.splat(0x7c00)));
  return v128.or(value, i32x4.shl(v128.and(v, i32x4.splat(0x8000)), 16));
}

/** BF16 of E4M3 codes in the lower half of each 16-bit lane. */
@inline
export function widenE4M3(codes: v128): v128 {
  const magnitude = v128.and(codes, i16x8.splat(0x7f));
  const normal = i16x8.add(i16x8.shl(magnitude, 4), i16x8.splat((127 - 7) << 7));
  // The subnormal codes 0 to 7 are looked up: 0, 2^-9, 2 * 2^-9, 3 * 2^-9 and so on, two bytes each.
  const table = i16x8(0, 0x3b00, 0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60);
  const bytes = i16x8.add(i16x8.mul(magnitude, i16x8.splat(0x0202)), i16x8.splat(0x0100));
  const subnormal = i8x16.swizzle(table, bytes);
  const value = v128.bitselect(subnormal, normal, i16x8.lt_s(magnitude, i16x8.splat(8)));
  const number = v128.or(value, i16x8.shl(v128.and(codes, i16x8.splat(0x80)), 8));
  return v128.or(number, i16x8.eq(magnitude, i16x8.splat(0x7f))); // all ones is a NaN
}

export function isNaN32(v: v128): v128 {
  return i32x4.gt_s(v128.and(v, i32x4.splat(0x7fffffff)), i32x4.splat(0x7f800000));
}

/** The code of a magnitude in a float type with `mantissa` bits and this bias; the caller handles larger magnitudes. */
export function roundTo(magnitude: v128, mantissa: i32, bias: i32): v128 {
  const shift = 23 - mantissa;
  // Normal: re-bias, add just under half and the bit that breaks ties, drop the lower bits; a carry raises the
  // exponent.
  const odd = v128.and(i32x4.shr_u(magnitude, shift), i32x4.splat(1));
  const half = i32x4.splat(((bias - 127) << 23) + (1 << (shift - 1)) - 1);
  const normal = i32x4.shr_u(i32x4.add(i32x4.add(magnitude, half), odd), shift);
  // Subnormal: the sum with a number whose last bit equals the least subnormal is rounded by the addition itself.
  const magic = i32x4.splat((127 + 23 - (bias - 1) - mantissa) << 23);
  const subnormal = i32x4.sub(f32x4.add(magnitude, magic), magic);
  return v128.bitselect(subnormal, normal, i32x4.lt_s(magnitude, i32x4.splat((127 + 1 - bias) << 23)));
}

/** F16 patterns of F32 lanes: ties to even, every NaN stays a NaN, and what is too large is infinity. */
export function narrowF16(v: v128): v128 {
  const magnitude = v128.and(v, i32x4.splat(0x7fffffff));
  // 65536 and above are infinity; rounding makes 65520 and above infinity.
  const number = roundTo(i32x4.min_s(magnitude, i32x4.splat((127 + 16) << 23)), 10, 15);
  const payload = v128.and(i32x4.shr_u(magnitude, 13), i32x4.splat(0x3ff));
  const code = v128.bitselect(v128.or(payload, i32x4.splat(0x7e00)), number, isNaN32(v));
  return v128.or(code, v128.and(i32x4.shr_u(v, 16), i32x4.splat(0x8000)));
}

/** Codes of E4M3, one in each lane: round(clamp(w / scale)). The quotient is an F32 division. */
export function narrowE4M3(v: v128, scale: v128): v128 {
  const magnitude = v128.and(v, i32x4.splat(0x7fffffff));
  const quotient = i32x4.min_s(f32x4.div(magnitude, scale), f32x4.splat(448));
  const code = v128.bitselect(i32x4.splat(0x7f), roundTo(quotient, 3, 7), isNaN32(v));
  return v128.or(code, v128.and(i32x4.shr_u(v, 24), i32x4.splat(0x80)));
}
