// Norms: layer-norm, rms-norm and gated-norm.
import { silu4 } from "./elementary";
import { loadPart, offset, storePart } from "./lanes";

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

/**
 * out = (gain + shift) * (x - mean) / sqrt(variance + eps) + bias of rows [from, to); the shift is 1 if `zeroCentered`
 * and else 0. In F64, in two passes: the mean, then the mean of (x - mean)^2.
 */
export function layerNorm(
  width: i32,
  eps: f64,
  zeroCentered: i32,
  x: usize,
  gain: usize,
  bias: usize,
  out: usize,
  from: i32,
  to: i32,
): void {
  const shift = f64x2.splat(<f64>zeroCentered);
  for (let t = from; t < to; t++) {
    const row = <usize>t * offset(width);
    const mean = meanOf(x + row, width);
    const factor = f64x2.splat(1.0 / sqrt(varianceOf(x + row, width, mean) + eps));
    const center = f64x2.splat(mean);
    let i = 0;
    do {
      const at = offset(i);
      const v = loadPart(x + row + at, width - i);
      const g = loadPart(gain + at, width - i);
      const b = loadPart(bias + at, width - i);
      const first = f64x2.mul(f64x2.mul(f64x2.sub(low(v), center), factor), f64x2.add(low(g), shift));
      const second = f64x2.mul(f64x2.mul(f64x2.sub(high(v), center), factor), f64x2.add(high(g), shift));
      const c = f32x4.demote_f64x2_zero(f64x2.add(first, low(b)));
      const d = f32x4.demote_f64x2_zero(f64x2.add(second, high(b)));
      storePart(out + row + at, v128.shuffle<f32>(c, d, 0, 1, 4, 5), width - i);
      i += 4;
    } while (i < width);
  }
}

function meanOf(x: usize, width: i32): f64 {
  let sum = f64x2.splat(0);
  for (let i = 0; i < width; i += 4) {
    const v = loadPart(x + offset(i), width - i);
    sum = f64x2.add(sum, f64x2.add(low(v), high(v)));
  }
  return (f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1)) / <f64>width;
}

function varianceOf(x: usize, width: i32, mean: f64): f64 {
  const center = f64x2.splat(mean);
  let sum = f64x2.splat(0);
  let i = 0;
  for (; i + 4 <= width; i += 4) {
    const v = v128.load(x + offset(i));
    const a = f64x2.sub(low(v), center);
    const b = f64x2.sub(high(v), center);
    sum = f64x2.add(sum, f64x2.add(f64x2.mul(a, a), f64x2.mul(b, b)));
  }
  let all = f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1);
  for (; i < width; i++) {
    const v = <f64>load<f32>(x + offset(i)) - mean;
    all += v * v;
  }
  return all / <f64>width;
}

/** out = y * silu(z) over `count` floats; out may be y. */
function gate(y: usize, z: usize, out: usize, count: i32): void {
  let i = 0;
  do {
    const at = offset(i);
    storePart(out + at, f32x4.mul(loadPart(y + at, count - i), silu4(loadPart(z + at, count - i))), count - i);
    i += 4;
  } while (i < count);
}

/**
 * y * silu(z), then the norm of each group of `run` channels; the norm comes first if `normFirst`. An item is one group;
 * a token has `groups` items.
 */
export function gatedNorm(
  run: i32,
  groups: i32,
  eps: f64,
  normFirst: i32,
  y: usize,
  z: usize,
  gain: usize,
  out: usize,
  from: i32,
  to: i32,
): void {
  for (let item = from; item < to; item++) {
    const first = (<usize>item * <usize>run) << 2;
    const group = (<usize>(item % groups) * <usize>run) << 2;
    if (normFirst) {
      normalize(y + first, gain + group, out + first, run, eps);
      gate(out + first, z + first, out + first, run);
    } else {
      gate(y + first, z + first, out + first, run);
      normalize(out + first, gain + group, out + first, run, eps);
    }
  }
}
