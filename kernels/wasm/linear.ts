// out[t, r] = scale * sum over k of w[r, k] * x[t, k], weights as stored.
//
// Work goes by blocks of 512 columns. A block of x is copied, two tokens side by side; four rows of weights at a time
// are decoded to F32; they meet the tokens two by two, as eight running sums of four lanes in registers. (The copy
// gains 12 % at 4096 columns: rows of x a power of two apart would share the same few cache sets.)
//
// One output's additions are: within a block lane by lane (k = lane mod 4), then the four lanes, then block after
// block, then the scale. That order depends on the number of columns alone; tiles, threads, bands and the number of
// tokens only change which outputs are computed together.
import { decode, widthShift } from "./decode";
import { loadPart, storePart, sumLanesOfFour } from "./lanes";

const ROWS = 4;
const BLOCK = 512;
/** Tokens that share a visit of the weights: 128 x 512 floats of x fit a second-level cache of 512 KiB. */
const TOKENS = 128;
/** Bytes of four columns of two tokens, and of four rows of weights. */
const X_STEP: usize = 2 * 16;
const W_STEP: usize = ROWS * 16;

@inline
function mulAdd(sum: v128, a: v128, b: v128): v128 {
  return f32x4.add(sum, f32x4.mul(a, b));
}

/** Four rows [columns / 4, 4 rows, 4] against two tokens [columns / 4, 2 tokens, 4]: their sums go to `sums`. */
function tile(w: usize, x: usize, columns: i32, sums: usize): void {
  let a0 = f32x4.splat(0);
  let a1 = a0;
  let a2 = a0;
  let a3 = a0;
  let b0 = a0;
  let b1 = a0;
  let b2 = a0;
  let b3 = a0;
  const end = w + <usize>((columns + 3) >> 2) * W_STEP;
  for (; w < end; w += W_STEP, x += X_STEP) {
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
  }
  v128.store(sums, sumLanesOfFour(a0, a1, a2, a3));
  v128.store(sums, sumLanesOfFour(b0, b1, b2, b3), 16);
}

/** Copies `columns` floats of a token to vectors X_STEP apart, the last one filled up with zeros. */
@inline
function pack(x: usize, columns: i32, to: usize): void {
  for (let k = 0; k < columns; k += 4, x += 16, to += X_STEP) v128.store(to, loadPart(x, columns - k));
}

/** scratch: eight sums, four rows of weights, then up to TOKENS tokens; blocks of 512 columns as F32 */
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
  const pairBytes: usize = (2 * BLOCK) << 2;
  for (let token = 0; token < tokens; token += TOKENS) {
    const count = min(TOKENS, tokens - token);
    for (let k = 0; k < cols; k += BLOCK) {
      const columns = min(BLOCK, cols - k);
      for (let t = 0; t < count; t++) {
        const at = x + ((<usize>(token + t) * <usize>inWidth + <usize>(inFrom + k)) << 2);
        pack(at, columns, packed + <usize>(t >> 1) * pairBytes + ((<usize>(t & 1)) << 4));
      }
      for (let row = from; row < to; row += ROWS) {
        // Rows or a token that a tile lacks are whatever lay there before: their sums are not stored.
        const rows = min(ROWS, to - row);
        for (let r = 0; r < rows; r++) {
          const element = <usize>(firstRow + row + r) * <usize>cols + <usize>k;
          decode(dtype, weight + (element << shift), columns, panel + ((<usize>r) << 4), W_STEP);
        }
        for (let t = 0; t < count; t += 2) {
          tile(panel, packed + <usize>(t >> 1) * pairBytes, columns, scratch);
          const at = out + ((<usize>(token + t) * <usize>outWidth + <usize>(outFrom + row)) << 2);
          finish(scratch, at, rows, k, columns == cols - k, scale);
          if (t + 1 < count) finish(scratch + 16, at + ((<usize>outWidth) << 2), rows, k, columns == cols - k, scale);
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
