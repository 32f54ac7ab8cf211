// Casts to E4M3 with a scale for each block. A call takes rows of one row of blocks; a block has `width` columns, the last
// one may have fewer.
import { f32ToE4M3 } from "./cast";
import { amax16, amax32 } from "./magnitudes";
import { narrowE4M3, widenF16 } from "./rounding";

/** Raises `most[i]`, magnitude bits, to the largest of block i, for elements of `size` bytes: 2 or 4. */
export function blockMax(size: i32, at: usize, rows: i32, columns: i32, width: i32, most: usize): void {
  for (let r = 0; r < rows; r++) {
    let p = most;
    for (let c = 0; c < columns; c += width) {
      const count = min(width, columns - c);
      const from = at + <usize>(c * size);
      store<i32>(p, max(load<i32>(p), size == 2 ? amax16(from, count) : amax32(from, count)));
      p += 4;
    }
    at += <usize>(columns * size);
  }
}

/** Codes at `to`. `scales` has an F32 for each block; `kind` of the elements at `at`: 0 for F32, 1 for BF16, 2 for F16. */
export function blocksToE4M3(
  kind: i32,
  scales: usize,
  at: usize,
  to: usize,
  rows: i32,
  columns: i32,
  width: i32,
): void {
  const size = kind == 0 ? 4 : 2;
  for (let r = 0; r < rows; r++) {
    let p = scales;
    for (let c = 0; c < columns; c += width) {
      const count = min(width, columns - c);
      const from = at + <usize>(c * size);
      if (kind == 0) f32ToE4M3(load<f32>(p), from, to + c, count);
      else halfToE4M3(kind == 2, load<f32>(p), from, to + c, count);
      p += 4;
    }
    at += <usize>(columns * size);
    to += columns;
  }
}

function halfToE4M3(isF16: bool, scale: f32, at: usize, to: usize, count: i32): void {
  const s = f32x4.splat(scale);
  let i = 0;
  for (; i + 8 <= count; i += 8) {
    const v = v128.load(at + ((<usize>i) << 1));
    const low = narrowE4M3(widenHalf(isF16, i32x4.extend_low_i16x8_u(v)), s);
    const high = narrowE4M3(widenHalf(isF16, i32x4.extend_high_i16x8_u(v)), s);
    const words = i16x8.narrow_i32x4_u(low, high);
    v128.store64_lane(to + i, i8x16.narrow_i16x8_u(words, words), 0);
  }
  for (; i < count; i++) {
    const v = i32x4.splat(<i32>load<u16>(at + ((<usize>i) << 1)));
    store<u8>(to + i, <u8>i32x4.extract_lane(narrowE4M3(widenHalf(isF16, v), s), 0));
  }
}

/** F32 of BF16 or F16 patterns in the lower half of each lane. */
@inline
function widenHalf(isF16: bool, v: v128): v128 {
  return isF16 ? widenF16(v) : i32x4.shl(v, 16);
}
