// Kernels that make each element from the elements at its place: add, add-row, copy, relu2, scale, swiglu, widen.
import { decode, storedBytes, unitElements } from "./decode";
import { silu4 } from "./elementary";
import { loadPart, offset, storePart } from "./lanes";

/** elements that `widen` decodes at a time, as many as the largest block has */
const CHUNK = 256;

/** out = a + b over elements [from, to); `out` may be `a` or `b`. */
export function add(a: usize, b: usize, out: usize, from: i32, to: i32): void {
  for (let i = from; i < to; i += 4) {
    const at = (<usize>i) << 2;
    storePart(out + at, f32x4.add(loadPart(a + at, to - i), loadPart(b + at, to - i)), to - i);
  }
}

/** out = x + bias for rows [from, to) of `width` elements; `out` may be `x`. */
export function addRow(width: i32, x: usize, bias: usize, out: usize, from: i32, to: i32): void {
  for (let t = from; t < to; t++) {
    const row = <usize>t * offset(width);
    add(x + row, bias, out + row, 0, width);
  }
}

/** out[at + i] = x[first + i] for each i in [from, to) */
export function copy(first: i32, at: i32, x: usize, out: usize, from: i32, to: i32): void {
  memory.copy(
    out + ((<usize>(at + from)) << 2),
    x + ((<usize>(first + from)) << 2),
    (<usize>(to - from)) << 2,
  );
}

/** y = max(x, 0)^2 over elements [from, to) */
export function relu2(x: usize, y: usize, from: i32, to: i32): void {
  const zero = f32x4.splat(0);
  for (let i = from; i < to; i += 4) {
    const at = (<usize>i) << 2;
    const v = f32x4.max(loadPart(x + at, to - i), zero);
    storePart(y + at, f32x4.mul(v, v), to - i);
  }
}

/** out = factor * x over elements [from, to); `out` may be `x`. */
export function scale(factor: f32, x: usize, out: usize, from: i32, to: i32): void {
  for (let i = from; i < to; i += 4) {
    const at = (<usize>i) << 2;
    storePart(out + at, f32x4.mul(loadPart(x + at, to - i), f32x4.splat(factor)), to - i);
  }
}

/** out = silu(gate) * up over elements [from, to); `out` may be `gate` or `up`. */
export function swiglu(gate: usize, up: usize, out: usize, from: i32, to: i32): void {
  for (let i = from; i < to; i += 4) {
    const at = (<usize>i) << 2;
    storePart(out + at, f32x4.mul(silu4(loadPart(gate + at, to - i)), loadPart(up + at, to - i)), to - i);
  }
}

/**
 * y = scale * x; `x` has the stored dtype. An item is an element, or a whole block of them.
 *
 * scratch: CHUNK floats
 */
export function widen(dtype: i32, scale: f32, x: usize, y: usize, scratch: usize, from: i32, to: i32): void {
  const unit = <i32>unitElements(dtype);
  const last = to * unit;
  const factor = f32x4.splat(scale);
  for (let chunk = from * unit; chunk < last; chunk += CHUNK) {
    const count = min(CHUNK, last - chunk);
    decode(dtype, x + storedBytes(dtype, chunk), count, scratch, 16);
    for (let i = 0; i < count; i += 4) {
      const v = f32x4.mul(v128.load(scratch + ((<usize>i) << 2)), factor);
      storePart(y + ((<usize>(chunk + i)) << 2), v, count - i);
    }
  }
}
