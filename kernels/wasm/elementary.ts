// exp, sigmoid, silu and softplus on four lanes. They have a fixed order of operations, so that every machine gives the
// same bits: no fused multiply-add and no relaxed instruction. Worst errors over ten million arguments, in units of the
// last place where results are normal: exp 1.0, silu 3.0, softplus 2.6.

@inline
function powerOfTwo(n: v128): v128 {
  return i32x4.shl(i32x4.add(n, i32x4.splat(127)), 23);
}

/**
 * e^x. Above 88.7 it is infinite, below -104 zero. (pmin and pmax are one instruction each and keep a NaN on the left;
 * min and max take seven.)
 * x = n ln 2 + r with |r| <= ln 2 / 2 (ln 2 in two parts, so that n times the first is exact); e^r by the
 * polynomial of Cephes' expf; 2^n in two factors, since 2^128 and 2^-150 are not floats.
 */
@inline
export function exp4(x: v128): v128 {
  x = f32x4.pmin(f32x4.pmax(x, f32x4.splat(-104)), f32x4.splat(89));
  // n rounded to even in the lowest bits of 3 * 2^22 + n, which has no bits for a fraction
  const shifted = f32x4.add(f32x4.mul(x, f32x4.splat(1.44269504)), f32x4.splat(12582912));
  const whole = f32x4.sub(shifted, f32x4.splat(12582912));
  let r = f32x4.sub(x, f32x4.mul(whole, f32x4.splat(0.693359375)));
  r = f32x4.sub(r, f32x4.mul(whole, f32x4.splat(-2.1219444e-4)));
  let p = f32x4.splat(1.98756915e-4);
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.3981999507e-3));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(8.3334519073e-3));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(4.1665795894e-2));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.6666665459e-1));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(5.0000001201e-1));
  p = f32x4.add(f32x4.mul(f32x4.mul(p, r), r), r);
  p = f32x4.add(p, f32x4.splat(1));
  const n = i32x4.sub(shifted, i32x4.splat(0x4b400000));
  const half = i32x4.shr_s(n, 1);
  return f32x4.mul(f32x4.mul(p, powerOfTwo(half)), powerOfTwo(i32x4.sub(n, half)));
}

/** 1 / (1 + e^-x), through e^-|x| so that neither end overflows. */
@inline
export function sigmoid4(x: v128): v128 {
  const e = exp4(f32x4.neg(f32x4.abs(x)));
  const one = f32x4.splat(1);
  const above = v128.bitselect(e, one, f32x4.lt(x, f32x4.splat(0)));
  return f32x4.div(above, f32x4.add(one, e));
}

/** x / (1 + e^-x) */
@inline
export function silu4(x: v128): v128 {
  return f32x4.mul(x, sigmoid4(x));
}

/**
 * ln(1 + e^x) = max(x, 0) + ln(1 + e), e = e^-|x| <= 1. With s = e / (2 + e) <= 1/3,
 * ln(1 + e) = 2 atanh(s) = 2 s (1 + s^2/3 + ... + s^14/15): the omitted terms are below 2e-9 of the result.
 */
@inline
export function softplus4(x: v128): v128 {
  const e = exp4(f32x4.neg(f32x4.abs(x)));
  const s = f32x4.div(e, f32x4.add(f32x4.splat(2), e));
  const q = f32x4.mul(s, s);
  let p = f32x4.splat(1.0 / 15.0);
  p = f32x4.add(f32x4.mul(p, q), f32x4.splat(1.0 / 13.0));
  p = f32x4.add(f32x4.mul(p, q), f32x4.splat(1.0 / 11.0));
  p = f32x4.add(f32x4.mul(p, q), f32x4.splat(1.0 / 9.0));
  p = f32x4.add(f32x4.mul(p, q), f32x4.splat(1.0 / 7.0));
  p = f32x4.add(f32x4.mul(p, q), f32x4.splat(1.0 / 5.0));
  p = f32x4.add(f32x4.mul(p, q), f32x4.splat(1.0 / 3.0));
  // s + s q p rather than s (1 + q p): the small part is rounded separately from the large part.
  const log = f32x4.add(s, f32x4.mul(f32x4.mul(s, q), p));
  return f32x4.add(f32x4.pmax(x, f32x4.splat(0)), f32x4.add(log, log));
}

export function exp(x: f32): f32 {
  return f32x4.extract_lane(exp4(f32x4.splat(x)), 0);
}

export function sigmoid(x: f32): f32 {
  return f32x4.extract_lane(sigmoid4(f32x4.splat(x)), 0);
}

export function softplus(x: f32): f32 {
  return f32x4.extract_lane(softplus4(f32x4.splat(x)), 0);
}
