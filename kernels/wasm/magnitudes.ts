// Counting and searching by magnitude. Every function works on `count` elements at an address of any alignment.
//
// The sign bit is masked off. Floats then compare as integers, and NaN compares above infinity.

/** Largest magnitude bits of one-byte floats. */
export function amax8(at: usize, count: i32): i32 {
  const mask = i8x16.splat(0x7f);
  let most = i8x16.splat(0);
  let i = 0;
  for (; i + 16 <= count; i += 16) most = i8x16.max_u(most, v128.and(v128.load(at + i), mask));
  const words = i16x8.max_u(i16x8.extend_low_i8x16_u(most), i16x8.extend_high_i8x16_u(most));
  let top = top16(words);
  for (; i < count; i++) top = max(top, <i32>load<u8>(at + i) & 0x7f);
  return top;
}

/** Largest magnitude bits of BF16 or F16. */
export function amax16(at: usize, count: i32): i32 {
  const mask = i16x8.splat(0x7fff);
  let a = i16x8.splat(0);
  let b = a;
  let c = a;
  let d = a;
  let i = 0;
  for (; i + 32 <= count; i += 32) {
    const p = at + ((<usize>i) << 1);
    a = i16x8.max_s(a, v128.and(v128.load(p), mask));
    b = i16x8.max_s(b, v128.and(v128.load(p, 16), mask));
    c = i16x8.max_s(c, v128.and(v128.load(p, 32), mask));
    d = i16x8.max_s(d, v128.and(v128.load(p, 48), mask));
  }
  let top = top16(i16x8.max_s(i16x8.max_s(a, b), i16x8.max_s(c, d)));
  for (; i < count; i++) top = max(top, <i32>load<u16>(at + ((<usize>i) << 1)) & 0x7fff);
  return top;
}

/** Largest magnitude bits of F32. */
export function amax32(at: usize, count: i32): i32 {
  const mask = i32x4.splat(0x7fffffff);
  let a = i32x4.splat(0);
  let b = a;
  let c = a;
  let d = a;
  let i = 0;
  for (; i + 16 <= count; i += 16) {
    const p = at + ((<usize>i) << 2);
    a = i32x4.max_s(a, v128.and(v128.load(p), mask));
    b = i32x4.max_s(b, v128.and(v128.load(p, 16), mask));
    c = i32x4.max_s(c, v128.and(v128.load(p, 32), mask));
    d = i32x4.max_s(d, v128.and(v128.load(p, 48), mask));
  }
  a = i32x4.max_s(i32x4.max_s(a, b), i32x4.max_s(c, d));
  let top = max(
    max(i32x4.extract_lane(a, 0), i32x4.extract_lane(a, 1)),
    max(i32x4.extract_lane(a, 2), i32x4.extract_lane(a, 3)),
  );
  for (; i < count; i++) top = max(top, load<i32>(at + ((<usize>i) << 2)) & 0x7fffffff);
  return top;
}

function top16(v: v128): i32 {
  const wide = i32x4.max_s(i32x4.extend_low_i16x8_u(v), i32x4.extend_high_i16x8_u(v));
  return max(
    max(i32x4.extract_lane(wide, 0), i32x4.extract_lane(wide, 1)),
    max(i32x4.extract_lane(wide, 2), i32x4.extract_lane(wide, 3)),
  );
}

/** Index of the first element at or after `start` with magnitude bits of at least `limit`, or -1. */
export function reaches8(at: usize, start: i32, count: i32, limit: i32): i32 {
  for (let i = start; i < count; i++) if ((<i32>load<u8>(at + i) & 0x7f) >= limit) return i;
  return -1;
}

export function reaches16(at: usize, start: i32, count: i32, limit: i32): i32 {
  for (let i = start; i < count; i++) {
    if ((<i32>load<u16>(at + ((<usize>i) << 1)) & 0x7fff) >= limit) return i;
  }
  return -1;
}

export function reaches32(at: usize, start: i32, count: i32, limit: i32): i32 {
  for (let i = start; i < count; i++) {
    if ((load<i32>(at + ((<usize>i) << 2)) & 0x7fffffff) >= limit) return i;
  }
  return -1;
}

/** Number of elements with magnitude bits below `limit`, which is at least 1. Lanes are added before they overflow. */
export function below8(at: usize, count: i32, limit: i32): i32 {
  const mask = i8x16.splat(0x7f);
  const most = i8x16.splat(<i8>limit);
  let found = 0;
  let i = 0;
  while (i + 64 <= count) {
    const end = min(count - 64, i + 255 * 64 - 64);
    let a = i8x16.splat(0);
    let b = a;
    let c = a;
    let d = a;
    for (; i <= end; i += 64) {
      const p = at + i;
      a = i8x16.sub(a, i8x16.lt_s(v128.and(v128.load(p), mask), most));
      b = i8x16.sub(b, i8x16.lt_s(v128.and(v128.load(p, 16), mask), most));
      c = i8x16.sub(c, i8x16.lt_s(v128.and(v128.load(p, 32), mask), most));
      d = i8x16.sub(d, i8x16.lt_s(v128.and(v128.load(p, 48), mask), most));
    }
    const ab = i16x8.add(i16x8.extadd_pairwise_i8x16_u(a), i16x8.extadd_pairwise_i8x16_u(b));
    const cd = i16x8.add(i16x8.extadd_pairwise_i8x16_u(c), i16x8.extadd_pairwise_i8x16_u(d));
    found += sum16(i16x8.add(ab, cd));
  }
  for (; i < count; i++) found += <i32>((<i32>load<u8>(at + i) & 0x7f) < limit);
  return found;
}

export function below16(at: usize, count: i32, limit: i32): i32 {
  const mask = i16x8.splat(0x7fff);
  const most = i16x8.splat(<i16>limit);
  let found = 0;
  let i = 0;
  while (i + 32 <= count) {
    const end = min(count - 32, i + 0x3fff * 32 - 32);
    let a = i16x8.splat(0);
    let b = a;
    let c = a;
    let d = a;
    for (; i <= end; i += 32) {
      const p = at + ((<usize>i) << 1);
      a = i16x8.sub(a, i16x8.lt_s(v128.and(v128.load(p), mask), most));
      b = i16x8.sub(b, i16x8.lt_s(v128.and(v128.load(p, 16), mask), most));
      c = i16x8.sub(c, i16x8.lt_s(v128.and(v128.load(p, 32), mask), most));
      d = i16x8.sub(d, i16x8.lt_s(v128.and(v128.load(p, 48), mask), most));
    }
    found += sum16(i16x8.add(a, b)) + sum16(i16x8.add(c, d));
  }
  for (; i < count; i++) found += <i32>((<i32>load<u16>(at + ((<usize>i) << 1)) & 0x7fff) < limit);
  return found;
}

/** The sum of unsigned lanes. */
function sum16(v: v128): i32 {
  const wide = i32x4.extadd_pairwise_i16x8_u(v);
  return (
    i32x4.extract_lane(wide, 0) +
    i32x4.extract_lane(wide, 1) +
    i32x4.extract_lane(wide, 2) +
    i32x4.extract_lane(wide, 3)
  );
}

export function below32(at: usize, count: i32, limit: i32): i32 {
  const mask = i32x4.splat(0x7fffffff);
  const most = i32x4.splat(limit);
  let found = 0;
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    const v = v128.load(at + ((<usize>i) << 2));
    found += popcnt<i32>(i32x4.bitmask(i32x4.lt_s(v128.and(v, mask), most)));
  }
  for (; i < count; i++) found += <i32>((load<i32>(at + ((<usize>i) << 2)) & 0x7fffffff) < limit);
  return found;
}
