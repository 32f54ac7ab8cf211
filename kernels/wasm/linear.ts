// out[t, r] = scale * sum over k of w[r, k] * x[t, k], weights as stored.
//
// A pass reads as many columns of x as fit half of the second-level cache, with two tokens side by side. It decodes
// 1024 columns of five rows of weights to F32. These stay in the first-level cache while they are multiplied with two
// tokens at a time: ten sums of four lanes, in registers.
//
// The additions of one output have this order: within a block, each lane sums its columns (k = lane mod 4); then the
// four lanes are added; then block after block; then the scale multiplies. The order depends on the number of columns
// alone: tiles, threads, bands and the number of tokens only change which outputs are computed together.
import { decodeFive, storedBytes } from "./decode";
import { loadPart, mulAdd, sumLanes, sumLanesOfFour } from "./lanes";

const ROWS = 5;
/** Columns of a block: five rows take 20 KiB of the cache and two tokens 8 KiB; smaller blocks have more overhead. */
const BLOCK = 1024;
/** Floats of x that a pass over the rows reads: half of a second-level cache, and at least a block of columns. */
const PASS = 65536;
/** Bytes of the sums of a tile, whole cache lines. */
const SUMS: usize = 192;
/** Bytes of four columns of a tile's rows. */
const W_STEP: usize = ROWS * 16;

/**
 * Five rows [columns / 4, 5 rows, 4] against two tokens [columns / 4, 2 tokens, 4]: ten vectors of sums go to `sums`
 * [5 rows, 2 tokens, 4].
 *
 * Ten sums, two vectors of x, one of w and one product use fourteen of V8's fifteen registers, provided that V8
 * computes each product next to its sum. V8 does so when the loop tests before its body and when the code after the
 * loop stores the sums one by one in the order in which they are computed. The pointers advance before they are used,
 * because V8 then knows that their upper halves are zero. (Other forms of the same arithmetic took up to twice as
 * long.)
 *
 * The function is exported so that asc does not inline it: V8 optimises a function for its next call, and one call of
 * `linear` takes long.
 */
export function tileOfTwo(w: usize, x: usize, columns: i32, sums: usize): void {
  let a0 = f32x4.splat(0);
  let b0 = a0;
  let a1 = a0;
  let b1 = a0;
  let a2 = a0;
  let b2 = a0;
  let a3 = a0;
  let b3 = a0;
  let a4 = a0;
  let b4 = a0;
  w -= W_STEP;
  x -= 32;
  const last = x + ((<usize>((columns + 3) >> 2)) << 5);
  while (x != last) {
    x += 32;
    w += W_STEP;
    const a = v128.load(x);
    const b = v128.load(x, 16);
    let row = v128.load(w);
    a0 = mulAdd(a0, row, a);
    b0 = mulAdd(b0, row, b);
    row = v128.load(w, 16);
    a1 = mulAdd(a1, row, a);
    b1 = mulAdd(b1, row, b);
    row = v128.load(w, 32);
    a2 = mulAdd(a2, row, a);
    b2 = mulAdd(b2, row, b);
    row = v128.load(w, 48);
    a3 = mulAdd(a3, row, a);
    b3 = mulAdd(b3, row, b);
    row = v128.load(w, 64);
    a4 = mulAdd(a4, row, a);
    b4 = mulAdd(b4, row, b);
  }
  v128.store(sums, a0);
  v128.store(sums, b0, 16);
  v128.store(sums, a1, 32);
  v128.store(sums, b1, 48);
  v128.store(sums, a2, 64);
  v128.store(sums, b2, 80);
  v128.store(sums, a3, 96);
  v128.store(sums, b3, 112);
  v128.store(sums, a4, 128);
  v128.store(sums, b4, 144);
}

/** Five rows against one token [columns / 4, 4]: sums [5 rows, 4], two vectors apart as in `tileOfTwo`. */
export function tileOfOne(w: usize, x: usize, columns: i32, sums: usize): void {
  let a0 = f32x4.splat(0);
  let a1 = a0;
  let a2 = a0;
  let a3 = a0;
  let a4 = a0;
  w -= W_STEP;
  x -= 16;
  const last = x + ((<usize>((columns + 3) >> 2)) << 4);
  while (x != last) {
    x += 16;
    w += W_STEP;
    const a = v128.load(x);
    a0 = mulAdd(a0, v128.load(w), a);
    a1 = mulAdd(a1, v128.load(w, 16), a);
    a2 = mulAdd(a2, v128.load(w, 32), a);
    a3 = mulAdd(a3, v128.load(w, 48), a);
    a4 = mulAdd(a4, v128.load(w, 64), a);
  }
  v128.store(sums, a0);
  v128.store(sums, a1, 32);
  v128.store(sums, a2, 64);
  v128.store(sums, a3, 96);
  v128.store(sums, a4, 128);
}

/** Copies `columns` floats of two tokens side by side, vector by vector; pads the last vectors with zeros. */
function packTwo(x: usize, y: usize, columns: i32, to: usize): void {
  const end = x + ((<usize>(columns & ~3)) << 2);
  while (x != end) {
    v128.store(to, v128.load(x));
    v128.store(to, v128.load(y), 16);
    x += 16;
    y += 16;
    to += 32;
  }
  if ((columns & 3) == 0) return;
  v128.store(to, loadPart(x, columns & 3));
  v128.store(to, loadPart(y, columns & 3), 16);
}

function packOne(x: usize, columns: i32, to: usize): void {
  const end = x + ((<usize>(columns & ~3)) << 2);
  for (; x != end; x += 16, to += 16) v128.store(to, v128.load(x));
  if (columns & 3) v128.store(to, loadPart(x, columns & 3));
}

/**
 * Copies x into the order in which `linear` reads it. For each block of columns and each two tokens:
 * [columns / 4, 2 tokens, 4]; for an odd last token: [columns / 4, 4]. The last vector of a row is padded with zeros.
 * An item is two tokens.
 */
export function packTokens(
  tokens: i32,
  cols: i32,
  inWidth: i32,
  inFrom: i32,
  x: usize,
  packed: usize,
  from: i32,
  to: i32,
): void {
  const step = (<usize>inWidth) << 2;
  for (let t = from << 1; t < min(tokens, to << 1); t += 2) {
    let at = x + <usize>t * step + ((<usize>inFrom) << 2);
    for (let k = 0; k < cols; k += BLOCK) {
      const columns = min(BLOCK, cols - k);
      const into = packed + packedAt(tokens, k, t, columns);
      if (t + 1 < tokens) packTwo(at, at + step, columns, into);
      else packOne(at, columns, into);
      at += BLOCK << 2;
    }
  }
}

/** Offset of token `t`, an even number, in the block that begins at column `k` and has `columns` columns. */
@inline
function packedAt(tokens: i32, k: i32, t: i32, columns: i32): usize {
  return ((<usize>k * <usize>tokens) << 2) + <usize>t * ((<usize>((columns + 3) >> 2)) << 4);
}

/**
 * An item is five rows. `packed`: the result of `packTokens`; scratch: the sums of a tile, then its rows of a block,
 * F32
 */
export function linear(
  tokens: i32,
  rows: i32,
  cols: i32,
  dtype: i32,
  scale: f32,
  firstRow: i32,
  outWidth: i32,
  outFrom: i32,
  weight: usize,
  packed: usize,
  out: usize,
  scratch: usize,
  from: i32,
  to: i32,
): void {
  const rowBytes = storedBytes(dtype, cols);
  const panel = scratch + SUMS;
  const outStep = (<usize>outWidth) << 2;
  const span = max(1, PASS / (tokens * BLOCK)) * BLOCK;
  for (let start = 0; start < cols; start += span) {
    const stop = min(cols, start + span);
    for (let row = from * ROWS; row < min(rows, to * ROWS); row += ROWS) {
      const count = min(ROWS, rows - row);
      for (let k = start; k < stop; k += BLOCK) {
        const columns = min(BLOCK, cols - k);
        const at = weight + <usize>(firstRow + row) * rowBytes + storedBytes(dtype, k);
        decodeFive(dtype, at, rowBytes, count, columns, panel);
        const last = columns == cols - k;
        let into = out + ((<usize>(outFrom + row)) << 2);
        for (let t = 0; t < tokens; t += 2) {
          const tile = packed + packedAt(tokens, k, t, columns);
          if (t + 1 == tokens) {
            tileOfOne(panel, tile, columns, scratch);
            finish(scratch, into, count, k, last, scale);
          } else {
            tileOfTwo(panel, tile, columns, scratch);
            if (count == ROWS) {
              finishAll(scratch, into, into + outStep, k, last, scale);
            } else {
              finish(scratch, into, count, k, last, scale);
              finish(scratch + 16, into + outStep, count, k, last, scale);
            }
          }
          into += 2 * outStep;
        }
      }
    }
  }
}

/** Adds the lanes of a block's sums and adds the result to the earlier blocks; the last block applies the scale. */
function finish(sums: usize, out: usize, rows: i32, k: i32, last: bool, scale: f32): void {
  for (let r = 0; r < rows; r++, sums += 32, out += 4) {
    const sum = sumLanes(v128.load(sums)) + (k > 0 ? load<f32>(out) : 0);
    store<f32>(out, last ? sum * scale : sum);
  }
}

/** As `finish`, for five rows of two tokens. */
@inline
function finishAll(sums: usize, out: usize, next: usize, k: i32, last: bool, scale: f32): void {
  const a4 = v128.load(sums, 128);
  const b4 = v128.load(sums, 144);
  let a = sumLanesOfFour(v128.load(sums), v128.load(sums, 32), v128.load(sums, 64), v128.load(sums, 96));
  let b = sumLanesOfFour(v128.load(sums, 16), v128.load(sums, 48), v128.load(sums, 80), v128.load(sums, 112));
  let ends = sumLanesOfFour(a4, b4, a4, b4);
  if (k > 0) {
    a = f32x4.add(a, v128.load(out));
    b = f32x4.add(b, v128.load(next));
    ends = f32x4.add(ends, v128.load32_lane(next, v128.load32_zero(out, 16), 1, 16));
  }
  if (last) {
    const factor = f32x4.splat(scale);
    a = f32x4.mul(a, factor);
    b = f32x4.mul(b, factor);
    ends = f32x4.mul(ends, factor);
  }
  v128.store(out, a);
  v128.store(next, b);
  v128.store32_lane(out, ends, 0, 16);
  v128.store32_lane(next, ends, 1, 16);
}
