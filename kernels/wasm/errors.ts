// Errors of casts: the squares of the differences between elements and their casts, row by row. Elements and casts have any
// alignment. A value is an exact widening times a scale, rounded to F32, as readers compute it.
import { widenE4M3, widenF16 } from "./rounding";

// Numbers of the float types, in the order of ERROR_KINDS in cast.ts.
const F32: i32 = 0;
const BF16: i32 = 1;
const F16: i32 = 2;
const E4M3: i32 = 3;

/** Squares that are added in F32 before the sum is added in F64: their sum has a relative error below 2^-20. */
const RUN = 64;

/** F32 squares are exact enough for a sum above this one. */
const LEAST_NORM: f64 = 1e-27;

/**
 * For each of `rows` rows, writes two F64 at `out`: the sum of (w - v)^2 and the sum of w^2, where w is an element at `at`
 * and v its cast at `to`. Elements that are equal, or NaN on both sides, differ by 0. The first sum of a row is infinite or
 * NaN where only one of the two is a finite number; the second has finite elements only.
 *
 * @param scale   factors of the two sides; with them the largest element is of the order of 1
 * @param toScale as `scale`
 */
export function rowErrors(
  kind: i32,
  at: usize,
  scale: f32,
  toKind: i32,
  to: usize,
  toScale: f32,
  rows: i32,
  columns: i32,
  out: usize,
): void {
  const step = <usize>columns * sizeOf(kind);
  const toStep = <usize>columns * sizeOf(toKind);
  for (let row = 0; row < rows; row++) {
    // The types of most recasts are constants here, so that the inner loop has no branches.
    if (kind == BF16 && toKind == E4M3) addRow(BF16, at, scale, E4M3, to, toScale, columns, out);
    else if (kind == BF16 && toKind == F32) addRow(BF16, at, scale, F32, to, toScale, columns, out);
    else if (kind == F32 && toKind == BF16) addRow(F32, at, scale, BF16, to, toScale, columns, out);
    else addRow(kind, at, scale, toKind, to, toScale, columns, out);
    const difference = load<f64>(out);
    if (difference - difference != 0 || !(load<f64>(out, 8) >= LEAST_NORM)) {
      addRowExactly(kind, at, scale, toKind, to, toScale, columns, out);
    }
    at += step;
    to += toStep;
    out += 16;
  }
}

@inline
function sizeOf(kind: i32): usize {
  return kind == F32 ? 4 : kind <= F16 ? 2 : 1;
}

@inline
function addRow(
  kind: i32,
  at: usize,
  scale: f32,
  toKind: i32,
  to: usize,
  toScale: f32,
  count: i32,
  out: usize,
): void {
  const s = f32x4.splat(scale);
  const toS = f32x4.splat(toScale);
  let difference = f64x2.splat(0);
  let norm = difference;
  let i = 0;
  while (i + 8 <= count) {
    const end = min(count - 8, i + RUN - 8);
    let low = f32x4.splat(0);
    let high = low;
    let wLow = low;
    let wHigh = low;
    do {
      const p = patterns(kind, at);
      const q = patterns(toKind, to);
      const a = f32x4.mul(lowOf(kind, at, p), s);
      const b = f32x4.mul(highOf(kind, at, p), s);
      const c = f32x4.sub(a, f32x4.mul(lowOf(toKind, to, q), toS));
      const d = f32x4.sub(b, f32x4.mul(highOf(toKind, to, q), toS));
      low = f32x4.add(low, f32x4.mul(c, c));
      high = f32x4.add(high, f32x4.mul(d, d));
      wLow = f32x4.add(wLow, f32x4.mul(a, a));
      wHigh = f32x4.add(wHigh, f32x4.mul(b, b));
      at += 8 * sizeOf(kind);
      to += 8 * sizeOf(toKind);
      i += 8;
    } while (i <= end);
    difference = f64x2.add(difference, widenedSum(f32x4.add(low, high)));
    norm = f64x2.add(norm, widenedSum(f32x4.add(wLow, wHigh)));
  }
  store<f64>(out, f64x2.extract_lane(difference, 0) + f64x2.extract_lane(difference, 1));
  store<f64>(out, f64x2.extract_lane(norm, 0) + f64x2.extract_lane(norm, 1), 8);
  addElements(kind, at, scale, toKind, to, toScale, count - i, out);
}

/** As `addRow`, in F64, for a row with elements that are not finite, or whose squares F32 cannot hold. */
function addRowExactly(
  kind: i32,
  at: usize,
  scale: f32,
  toKind: i32,
  to: usize,
  toScale: f32,
  count: i32,
  out: usize,
): void {
  store<f64>(out, 0);
  store<f64>(out, 0, 8);
  addElements(kind, at, scale, toKind, to, toScale, count, out);
}

/** Adds elements to the sums at `out`, one by one. */
function addElements(
  kind: i32,
  at: usize,
  scale: f32,
  toKind: i32,
  to: usize,
  toScale: f32,
  count: i32,
  out: usize,
): void {
  let difference = load<f64>(out);
  let norm = load<f64>(out, 8);
  for (let i = 0; i < count; i++) {
    const w = <f64>(valueAt(kind, at) * scale);
    const v = <f64>(valueAt(toKind, to) * toScale);
    const error = w - v;
    if (w != v && (w == w || v == v)) difference += error * error;
    if (w - w == 0) norm += w * w;
    at += sizeOf(kind);
    to += sizeOf(toKind);
  }
  store<f64>(out, difference);
  store<f64>(out, norm, 8);
}

@inline
function widenedSum(v: v128): v128 {
  return f64x2.add(f64x2.promote_low_f32x4(v), f64x2.promote_low_f32x4(v128.shuffle<i32>(v, v, 2, 3, 2, 3)));
}

/** Patterns of eight elements of 16 bits; codes become BF16 or F16 first. F32 has none. */
@inline
function patterns(kind: i32, at: usize): v128 {
  if (kind == F32) return i32x4.splat(0);
  if (kind <= F16) return v128.load(at);
  const codes = i16x8.extend_low_i8x16_u(v128.load64_zero(at));
  return kind == E4M3 ? widenE4M3(codes) : i16x8.shl(codes, 8); // an E5M2 code is the upper byte of an F16
}

@inline
function lowOf(kind: i32, at: usize, p: v128): v128 {
  if (kind == F32) return v128.load(at);
  return isBF16(kind) ? i32x4.shl(i32x4.extend_low_i16x8_u(p), 16) : widenF16(i32x4.extend_low_i16x8_u(p));
}

@inline
function highOf(kind: i32, at: usize, p: v128): v128 {
  if (kind == F32) return v128.load(at, 16);
  return isBF16(kind) ? i32x4.shl(i32x4.extend_high_i16x8_u(p), 16) : widenF16(i32x4.extend_high_i16x8_u(p));
}

/** Whether `patterns` gives BF16. */
@inline
function isBF16(kind: i32): bool {
  return kind == BF16 || kind == E4M3;
}

function valueAt(kind: i32, at: usize): f32 {
  if (kind == F32) return load<f32>(at);
  if (kind == BF16) return reinterpret<f32>((<i32>load<u16>(at)) << 16);
  if (kind == F16) return f32x4.extract_lane(widenF16(i32x4.splat(<i32>load<u16>(at))), 0);
  const code = <i32>load<u8>(at);
  if (kind != E4M3) return f32x4.extract_lane(widenF16(i32x4.splat(code << 8)), 0);
  return reinterpret<f32>(i32x4.extract_lane(widenE4M3(i32x4.splat(code)), 0) << 16);
}
