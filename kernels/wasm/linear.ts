// out[t, r] = scale * sum over k of w[r, k] * x[t, k], weights as stored.
//
// A pass packs as many columns of x as fit half a second-level cache, two tokens side by side; it streams from there.
// Four rows of weights at a time are decoded to F32, 512 columns of them, which stay in the first-level cache while
// they meet the tokens two by two, as eight running sums of four lanes in registers.
//
// One output's additions are: within a block lane by lane (k = lane mod 4), then the four lanes, then block after
// block, then the scale. That order depends on the number of columns alone; tiles, threads, bands and the number of
// tokens only change which outputs are computed together.
import { decode, widthShift } from "./decode";
import { loadPart, mulAdd, storePart, sumLanesOfFour } from "./lanes";

const ROWS = 4;
const BLOCK = 512;
/** Floats of x that a pass over the rows packs, and tokens that share it: of those a block of columns must fit. */
const PASS = 65536;
const TOKENS = PASS / BLOCK;
/** Bytes of four columns of four rows of weights. */
const W_STEP: usize = ROWS * 16;

/**
 * Four rows [columns / 4, 4 rows, 4] against two tokens [columns / 4, 2 tokens, 4]: their sums go to `sums`.
 *
 * Two steps a turn, left from the middle too: V8 computes before a branch what is needed behind it, each product
 * next to its sum. In a body of one piece it puts all products first, and with the sums they are more than its fifteen
 * registers hold (26 instead of 37 GFLOP/s). Exported lest asc inline it: V8 optimises a function for its next call,
 * and a call of `linear` takes long.
 */
export function tileOfTwo(w: usize, x: usize, columns: i32, sums: usize): void {
  let a0 = f32x4.splat(0);
  let a1 = a0;
  let a2 = a0;
  let a3 = a0;
  let b0 = a0;
  let b1 = a0;
  let b2 = a0;
  let b3 = a0;
  const last = w + <usize>((columns - 1) >> 2) * W_STEP;
  while (true) {
    let a = v128.load(x);
    let b = v128.load(x, 16);
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
    if (w == last) break;
    a = v128.load(x, 32);
    b = v128.load(x, 48);
    row = v128.load(w, 64);
    a0 = mulAdd(a0, row, a);
    b0 = mulAdd(b0, row, b);
    row = v128.load(w, 80);
    a1 = mulAdd(a1, row, a);
    b1 = mulAdd(b1, row, b);
    row = v128.load(w, 96);
    a2 = mulAdd(a2, row, a);
    b2 = mulAdd(b2, row, b);
    row = v128.load(w, 112);
    a3 = mulAdd(a3, row, a);
    b3 = mulAdd(b3, row, b);
    if (w + W_STEP == last) break;
    w += 2 * W_STEP;
    x += 64;
  }
  v128.store(sums, sumLanesOfFour(a0, a1, a2, a3));
  v128.store(sums, sumLanesOfFour(b0, b1, b2, b3), 16);
}

/** Four rows against one token [columns / 4, 4]; exported as its neighbour is. */
export function tileOfOne(w: usize, x: usize, columns: i32, sums: usize): void {
  let a0 = f32x4.splat(0);
  let a1 = a0;
  let a2 = a0;
  let a3 = a0;
  const end = w + <usize>((columns + 3) >> 2) * W_STEP;
  do {
    const a = v128.load(x);
    a0 = mulAdd(a0, v128.load(w), a);
    a1 = mulAdd(a1, v128.load(w, 16), a);
    a2 = mulAdd(a2, v128.load(w, 32), a);
    a3 = mulAdd(a3, v128.load(w, 48), a);
    w += W_STEP;
    x += 16;
  } while (w != end);
  v128.store(sums, sumLanesOfFour(a0, a1, a2, a3));
}

/** Copies `columns` floats of a token to vectors `step` bytes apart, the last one filled up with zeros. */
@inline
function pack(x: usize, columns: i32, to: usize, step: usize): void {
  const end = x + ((<usize>(columns & ~3)) << 2);
  for (; x < end; x += 16, to += step) v128.store(to, v128.load(x));
  if (columns & 3) v128.store(to, loadPart(x, columns & 3));
}

/** scratch: eight sums, four rows of weights by 512 columns, then the tokens of a pass; all F32 */
export function linear(
  tokens: i32,
  cols: i32,
  dtype: i32,
  scale: f32,
  firstRow: i32,
  inWidth: i32,
  inFrom: i32,
  outWidth: i32,
  outFrom: i32,
  weight: usize,
  x: usize,
  out: usize,
  scratch: usize,
  from: i32,
  to: i32,
): void {
  const shift = widthShift(dtype);
  const panel = scratch + 64;
  const packed = panel + ((ROWS * BLOCK) << 2);
  for (let token = 0; token < tokens; token += TOKENS) {
    const count = min(TOKENS, tokens - token);
    const span = max(1, PASS / (count * BLOCK)) * BLOCK;
    for (let start = 0; start < cols; start += span) {
      const stop = min(cols, start + span);
      // [columns / 4, 2 tokens, 4] for each two tokens, then [columns / 4, 4] of the one left over; whole vectors
      const length = (<usize>((stop - start + 3) >> 2)) << 4;
      for (let t = 0; t < count; t++) {
        const at = x + ((<usize>(token + t) * <usize>inWidth + <usize>(inFrom + start)) << 2);
        const paired = (t | 1) < count;
        const first = packed + <usize>(t & ~1) * length + (paired ? (<usize>(t & 1)) << 4 : 0);
        pack(at, stop - start, first, paired ? 32 : 16);
      }
      for (let row = from; row < to; row += ROWS) {
        const rows = min(ROWS, to - row);
        for (let k = start; k < stop; k += BLOCK) {
          // Rows that a tile lacks are whatever lay there before: their sums are not stored.
          const columns = min(BLOCK, stop - k);
          for (let r = 0; r < rows; r++) {
            const element = <usize>(firstRow + row + r) * <usize>cols + <usize>k;
            decode(dtype, weight + (element << shift), columns, panel + ((<usize>r) << 4), W_STEP);
          }
          const last = columns == cols - k;
          const skip = (<usize>(k - start)) << 2;
          let at = out + ((<usize>token * <usize>outWidth + <usize>(outFrom + row)) << 2);
          let t = 0;
          for (; t + 1 < count; t += 2) {
            tileOfTwo(panel, packed + <usize>t * length + 2 * skip, columns, scratch);
            finish(scratch, at, rows, k, last, scale);
            at += (<usize>outWidth) << 2;
            finish(scratch + 16, at, rows, k, last, scale);
            at += (<usize>outWidth) << 2;
          }
          if (t < count) {
            tileOfOne(panel, packed + <usize>t * length + skip, columns, scratch);
            finish(scratch, at, rows, k, last, scale);
          }
        }
      }
    }
  }
}

/** Adds a block's sums to those before it; the last block applies the scale. */
@inline
function finish(sums: usize, out: usize, rows: i32, k: i32, last: bool, scale: f32): void {
  let sum = v128.load(sums);
  if (k > 0) sum = f32x4.add(loadPart(out, rows), sum);
  if (last) sum = f32x4.mul(sum, f32x4.splat(scale));
  storePart(out, sum, rows);
}
