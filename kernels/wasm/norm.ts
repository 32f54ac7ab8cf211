// Root-mean-square norms: rms-norm and gated-norm.
import { silu4 } from "./elementary";
import { loadPart, storePart } from "./lanes";

@inline
function low(v: v128): v128 {
  return f64x2.promote_low_f32x4(v);
}

@inline
function high(v: v128): v128 {
  return f64x2.promote_low_f32x4(v128.shuffle<f32>(v, v, 2, 3, 2, 3));
}

/**
 * out = gain * x / sqrt(mean(x^2) + eps) over one row of `width` floats; out may be x.
 * Computed in F64 and rounded once for each output: the square of any F32 fits, and the sum loses no accuracy.
 */
function normalize(x: usize, gain: usize, out: usize, width: i32, eps: f64): void {
  let sum = f64x2.splat(0);
  for (let i = 0; i < width; i += 4) {
    const v = loadPart(x + ((<usize>i) << 2), width - i);
    sum = f64x2.add(sum, f64x2.mul(low(v), low(v)));
    sum = f64x2.add(sum, f64x2.mul(high(v), high(v)));
  }
  const mean = (f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1)) / <f64>width;
  const factor = f64x2.splat(1.0 / sqrt(mean + eps));
  let i = 0;
  do {
    const at = (<usize>i) << 2;
    const v = loadPart(x + at, width - i);
    const g = loadPart(gain + at, width - i);
    const a = f32x4.demote_f64x2_zero(f64x2.mul(f64x2.mul(low(v), factor), low(g)));
    const b = f32x4.demote_f64x2_zero(f64x2.mul(f64x2.mul(high(v), factor), high(g)));
    storePart(out + at, v128.shuffle<f32>(a, b, 0, 1, 4, 5), width - i);
    i += 4;
  } while (i < width);
}

/** rms-norm of rows [from, to) */
export function rmsNorm(width: i32, eps: f64, x: usize, gain: usize, out: usize, from: i32, to: i32): void {
  for (let t = from; t < to; t++) {
    const at = (<usize>t * <usize>width) << 2;
    normalize(x + at, gain, out + at, width, eps);
  }
}

/** y * silu(z), then the norm of each group of `run` channels. An item is one group; a token has `groups` items. */
export function gatedNorm(
  run: i32,
  groups: i32,
  eps: f64,
  y: usize,
  z: usize,
  gain: usize,
  out: usize,
  from: i32,
  to: i32,
): void {
  for (let item = from; item < to; item++) {
    const first = (<usize>item * <usize>run) << 2;
    let i = 0;
    do {
      const at = first + ((<usize>i) << 2);
      const g = f32x4.mul(loadPart(y + at, run - i), silu4(loadPart(z + at, run - i)));
      storePart(out + at, g, run - i);
      i += 4;
    } while (i < run);
    const group = (<usize>(item % groups) * <usize>run) << 2;
    normalize(out + first, gain + group, out + first, run, eps);
  }
}
