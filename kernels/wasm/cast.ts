// Casts between dtypes: table gathers, exact widening, and the rounding of F32. Every function works on `count`
// elements at addresses of any alignment; `from` and `to` must not overlap. Bits are little-endian.

import { isNaN32, narrowE4M3, narrowF16, roundTo, widenF16 } from "./rounding";

// ---- gathers: `table` holds the result for every source code ----

export function gather8to8(table: usize, from: usize, to: usize, count: i32): void {
  for (let i = 0; i < count; i++) store<u8>(to + i, load<u8>(table + <usize>load<u8>(from + i)));
}

export function gather8to16(table: usize, from: usize, to: usize, count: i32): void {
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    const p = to + ((<usize>i) << 1);
    const codes = load<u32>(from + i);
    store<u16>(p, load<u16>(table + <usize>((codes & 0xff) << 1)));
    store<u16>(p, load<u16>(table + <usize>(((codes >> 8) & 0xff) << 1)), 2);
    store<u16>(p, load<u16>(table + <usize>(((codes >> 16) & 0xff) << 1)), 4);
    store<u16>(p, load<u16>(table + <usize>((codes >> 24) << 1)), 6);
  }
  for (; i < count; i++) {
    store<u16>(to + ((<usize>i) << 1), load<u16>(table + ((<usize>load<u8>(from + i)) << 1)));
  }
}

export function gather8to32(table: usize, from: usize, to: usize, count: i32): void {
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    const p = to + ((<usize>i) << 2);
    const codes = load<u32>(from + i);
    store<u32>(p, load<u32>(table + <usize>((codes & 0xff) << 2)));
    store<u32>(p, load<u32>(table + <usize>(((codes >> 8) & 0xff) << 2)), 4);
    store<u32>(p, load<u32>(table + <usize>(((codes >> 16) & 0xff) << 2)), 8);
    store<u32>(p, load<u32>(table + <usize>((codes >> 24) << 2)), 12);
  }
  for (; i < count; i++) {
    store<u32>(to + ((<usize>i) << 2), load<u32>(table + ((<usize>load<u8>(from + i)) << 2)));
  }
}

export function gather16to8(table: usize, from: usize, to: usize, count: i32): void {
  let i = 0;
  for (; i + 8 <= count; i += 8) {
    const p = from + ((<usize>i) << 1);
    const q = to + i;
    const a = load<u64>(p);
    const b = load<u64>(p, 8);
    store<u8>(q, load<u8>(table + <usize>(a & 0xffff)));
    store<u8>(q, load<u8>(table + <usize>((a >> 16) & 0xffff)), 1);
    store<u8>(q, load<u8>(table + <usize>((a >> 32) & 0xffff)), 2);
    store<u8>(q, load<u8>(table + <usize>(a >> 48)), 3);
    store<u8>(q, load<u8>(table + <usize>(b & 0xffff)), 4);
    store<u8>(q, load<u8>(table + <usize>((b >> 16) & 0xffff)), 5);
    store<u8>(q, load<u8>(table + <usize>((b >> 32) & 0xffff)), 6);
    store<u8>(q, load<u8>(table + <usize>(b >> 48)), 7);
  }
  for (; i < count; i++) {
    store<u8>(to + i, load<u8>(table + <usize>load<u16>(from + ((<usize>i) << 1))));
  }
}

export function gather16to16(table: usize, from: usize, to: usize, count: i32): void {
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    const q = to + ((<usize>i) << 1);
    const a = load<u64>(from + ((<usize>i) << 1));
    store<u16>(q, load<u16>(table + <usize>((a & 0xffff) << 1)));
    store<u16>(q, load<u16>(table + <usize>(((a >> 16) & 0xffff) << 1)), 2);
    store<u16>(q, load<u16>(table + <usize>(((a >> 32) & 0xffff) << 1)), 4);
    store<u16>(q, load<u16>(table + <usize>((a >> 48) << 1)), 6);
  }
  for (; i < count; i++) {
    const at = (<usize>i) << 1;
    store<u16>(to + at, load<u16>(table + ((<usize>load<u16>(from + at)) << 1)));
  }
}

// ---- widening: exact ----

export function bf16ToF32(from: usize, to: usize, count: i32): void {
  let i = 0;
  for (; i + 8 <= count; i += 8) {
    const v = v128.load(from + ((<usize>i) << 1));
    const q = to + ((<usize>i) << 2);
    v128.store(q, i32x4.shl(i32x4.extend_low_i16x8_u(v), 16));
    v128.store(q, i32x4.shl(i32x4.extend_high_i16x8_u(v), 16), 16);
  }
  for (; i < count; i++) {
    store<u32>(to + ((<usize>i) << 2), (<u32>load<u16>(from + ((<usize>i) << 1))) << 16);
  }
}

export function f16ToF32(from: usize, to: usize, count: i32): void {
  let i = 0;
  for (; i + 8 <= count; i += 8) {
    const v = v128.load(from + ((<usize>i) << 1));
    const q = to + ((<usize>i) << 2);
    v128.store(q, widenF16(i32x4.extend_low_i16x8_u(v)));
    v128.store(q, widenF16(i32x4.extend_high_i16x8_u(v)), 16);
  }
  for (; i < count; i++) {
    const v = widenF16(i32x4.splat(<i32>load<u16>(from + ((<usize>i) << 1))));
    store<i32>(to + ((<usize>i) << 2), i32x4.extract_lane(v, 0));
  }
}

// ---- narrowing F32: ties round to even; subnormals, the sign of zero and the sign of NaN stay ----

export function f32ToBf16(from: usize, to: usize, count: i32): void {
  let i = 0;
  for (; i + 8 <= count; i += 8) {
    const p = from + ((<usize>i) << 2);
    const v = i16x8.narrow_i32x4_u(narrowBf16(v128.load(p)), narrowBf16(v128.load(p, 16)));
    v128.store(to + ((<usize>i) << 1), v);
  }
  for (; i < count; i++) {
    const v = narrowBf16(i32x4.splat(load<i32>(from + ((<usize>i) << 2))));
    store<u16>(to + ((<usize>i) << 1), <u16>i32x4.extract_lane(v, 0));
  }
}

function narrowBf16(v: v128): v128 {
  const odd = v128.and(i32x4.shr_u(v, 16), i32x4.splat(1));
  const rounded = i32x4.shr_u(i32x4.add(i32x4.add(v, i32x4.splat(0x7fff)), odd), 16);
  // Rounding would turn some NaNs into infinity or zero: every NaN becomes a quiet NaN instead.
  const quiet = v128.or(i32x4.shr_u(v, 16), i32x4.splat(0x40));
  return v128.bitselect(quiet, rounded, isNaN32(v));
}

export function f32ToF16(from: usize, to: usize, count: i32): void {
  let i = 0;
  for (; i + 8 <= count; i += 8) {
    const p = from + ((<usize>i) << 2);
    const v = i16x8.narrow_i32x4_u(narrowF16(v128.load(p)), narrowF16(v128.load(p, 16)));
    v128.store(to + ((<usize>i) << 1), v);
  }
  for (; i < count; i++) {
    const v = narrowF16(i32x4.splat(load<i32>(from + ((<usize>i) << 2))));
    store<u16>(to + ((<usize>i) << 1), <u16>i32x4.extract_lane(v, 0));
  }
}

// code = round(clamp(w / scale)); the quotient is an F32 division. Infinities become the largest code.
export function f32ToE4M3(scale: f32, from: usize, to: usize, count: i32): void {
  const s = f32x4.splat(scale);
  let i = 0;
  for (; i + 16 <= count; i += 16) {
    const p = from + ((<usize>i) << 2);
    const a = i16x8.narrow_i32x4_u(narrowE4M3(v128.load(p), s), narrowE4M3(v128.load(p, 16), s));
    const b = i16x8.narrow_i32x4_u(narrowE4M3(v128.load(p, 32), s), narrowE4M3(v128.load(p, 48), s));
    v128.store(to + i, i8x16.narrow_i16x8_u(a, b));
  }
  for (; i < count; i++) {
    const v = narrowE4M3(i32x4.splat(load<i32>(from + ((<usize>i) << 2))), s);
    store<u8>(to + i, <u8>i32x4.extract_lane(v, 0));
  }
}

export function f32ToE5M2(scale: f32, from: usize, to: usize, count: i32): void {
  const s = f32x4.splat(scale);
  let i = 0;
  for (; i + 16 <= count; i += 16) {
    const p = from + ((<usize>i) << 2);
    const a = i16x8.narrow_i32x4_u(narrowE5M2(v128.load(p), s), narrowE5M2(v128.load(p, 16), s));
    const b = i16x8.narrow_i32x4_u(narrowE5M2(v128.load(p, 32), s), narrowE5M2(v128.load(p, 48), s));
    v128.store(to + i, i8x16.narrow_i16x8_u(a, b));
  }
  for (; i < count; i++) {
    const v = narrowE5M2(i32x4.splat(load<i32>(from + ((<usize>i) << 2))), s);
    store<u8>(to + i, <u8>i32x4.extract_lane(v, 0));
  }
}

function narrowE5M2(v: v128, scale: v128): v128 {
  const magnitude = v128.and(v, i32x4.splat(0x7fffffff));
  const quotient = i32x4.min_s(f32x4.div(magnitude, scale), f32x4.splat(57344));
  const payload = v128.and(i32x4.shr_u(magnitude, 21), i32x4.splat(3));
  const nan = v128.or(payload, i32x4.splat(0x7e));
  const code = v128.bitselect(nan, roundTo(quotient, 2, 15), isNaN32(v));
  return v128.or(code, v128.and(i32x4.shr_u(v, 24), i32x4.splat(0x80)));
}
