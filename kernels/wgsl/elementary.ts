/**
 * exp, sigmoid, silu and softplus. WGSL allows an exp whose error grows with its argument, so these are our own. No
 * step produces an infinity or loses a NaN: some devices assume that neither occurs.
 */

/** Roundings that WGSL grants a division (2.5 units in the last place) and an inverse square root (2). */
export const DIVISION_ROUNDINGS = 5;
export const INVERSE_ROOT_ROUNDINGS = 4;

/** Roundings of the functions below: sigmoid is an exp, a sum and a division; silu adds a product, softplus a sum. */
export const EXP_ROUNDINGS = 3;
export const SIGMOID_ROUNDINGS = EXP_ROUNDINGS + 1 + DIVISION_ROUNDINGS;
export const SILU_ROUNDINGS = SIGMOID_ROUNDINGS + 1;
export const SOFTPLUS_ROUNDINGS = SILU_ROUNDINGS + 1;

/** Tests the bits: a compiler may assume that x == x. */
export const IS_NAN_WGSL =
  "fn isNaN(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }";

/**
 * e^x. x = n ln 2 + r, ln 2 in two parts; e^r by a polynomial (Cephes' expf); 2^n in two halves, since 2^128 and 2^-150
 * are not floats. Above 88.7 the result is infinite or the largest float, below -104 zero.
 */
export const EXP_WGSL = `${IS_NAN_WGSL}
fn powerOfTwo(n: i32) -> f32 { return bitcast<f32>((n + 127) << 23u); }

fn expOf(x: f32) -> f32 {
  let c = clamp(x, -104.0, 88.7);
  let whole = round(c * 1.44269504);
  var r = c - whole * 0.693359375;
  r = r + whole * 2.1219444e-4;
  var e = 1.98756915e-4;
  e = e * r + 1.3981999507e-3;
  e = e * r + 8.3334519073e-3;
  e = e * r + 4.1665795894e-2;
  e = e * r + 1.6666665459e-1;
  e = e * r + 5.0000001201e-1;
  e = e * r * r + r + 1.0;
  let n = i32(whole);
  let half = n >> 1u;
  return select(e * powerOfTwo(half) * powerOfTwo(n - half), x, isNaN(x));
}`;

/** 1 / (1 + e^-x), through e^-|x| so that neither end overflows. */
export const SIGMOID_WGSL = `${EXP_WGSL}
fn sigmoidOf(x: f32) -> f32 {
  let e = expOf(-abs(x));
  return select(1.0, e, x < 0.0) / (1.0 + e);
}`;

export const SILU_WGSL = `${SIGMOID_WGSL}
fn siluOf(x: f32) -> f32 { return x * sigmoidOf(x); }`;

/** ln(1 + e^x) = max(x, 0) + ln(1 + e), e = e^-|x| <= 1; with s = e / (2 + e), ln(1 + e) = 2 atanh(s), to s^15. */
export const SOFTPLUS_WGSL = `${EXP_WGSL}
fn softplusOf(x: f32) -> f32 {
  let e = expOf(-abs(x));
  let s = e / (2.0 + e);
  let q = s * s;
  var t = 1.0 / 15.0;
  t = t * q + 1.0 / 13.0;
  t = t * q + 1.0 / 11.0;
  t = t * q + 1.0 / 9.0;
  t = t * q + 1.0 / 7.0;
  t = t * q + 1.0 / 5.0;
  t = t * q + 1.0 / 3.0;
  let log = s + s * q * t;
  return select(0.0, x, x > 0.0) + (log + log);
}`;
