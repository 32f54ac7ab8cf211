/**
 * A band of a matrix times the tokens, weights as stored:
 * out[t, outFrom + r] = scale * sum over k of w[firstRow + r, k] * x[t, inFrom + k].
 *
 * A result has the same bits in every band; in WASM also for any number of tokens and threads. FP8 weights are used as
 * the values of their codes; the scale multiplies the sum once. A row of a quantised type is whole blocks, whose own scales
 * belong to the values. Columns of `out` outside the band stay as they are.
 * `inFrom` and `outFrom` may be larger than a row, to skip whole tokens.
 */
import { DECODED_BLOCKS, isDecodedBlock, type NumericDType } from "../../src/core/dtype.ts";
import { type KernelDefinition, ROUNDING, STORED_DTYPES } from "../kernel.ts";

export interface LinearParams {
  readonly tokens: number;
  /** rows of this band */
  readonly rows: number;
  readonly cols: number;
  readonly dtype: NumericDType;
  /** factor from stored to real weights, representable in F32 */
  readonly scale: number;
  /** first row of the band among the stored rows */
  readonly firstRow: number;
  readonly inWidth: number;
  readonly inFrom: number;
  readonly outWidth: number;
  readonly outFrom: number;
}

const wholeMatrix = (
  tokens: number,
  rows: number,
  cols: number,
  dtype: NumericDType,
  scale = 1,
): LinearParams => ({
  ...{ tokens, rows, cols, dtype, scale: Math.fround(scale) },
  ...{ firstRow: 0, inWidth: cols, inFrom: 0, outWidth: rows, outFrom: 0 },
});

/** As in kernels/wasm/linear.ts: rows of a tile, columns of a block, and tokens of a part. */
const ROWS = 5;
const BLOCK = 1024;
const PART = 64;

/**
 * Roundings of a term: at most 256 additions in a lane, 2 over lanes, one for each block of 1024; product and scale.
 */
export const roundingsOf = (cols: number): number =>
  Math.ceil(Math.min(cols, BLOCK) / 4) + 2 + Math.ceil(cols / BLOCK) + 2;

export const linearDefinition: KernelDefinition<LinearParams> = {
  id: "linear",
  inputs: ({ tokens, rows, cols, dtype, firstRow, inWidth, inFrom }) => [
    { name: "weight", length: (firstRow + rows) * cols, dtype, hard: "codes" }, // [firstRow + rows, cols]
    { name: "x", length: (tokens + Math.floor(inFrom / inWidth)) * inWidth, dtype: "F32" }, // [.. + T, inWidth]
  ],
  output: ({ tokens, outWidth, outFrom }) => ({
    name: "out",
    length: (tokens + Math.floor(outFrom / outWidth)) * outWidth, // [.. + T, outWidth]
    dtype: "F32",
  }),
  cases: [
    ...STORED_DTYPES.filter((dtype) => !isDecodedBlock(dtype)).flatMap((dtype) => [
      wholeMatrix(1, 9, 32, dtype),
      wholeMatrix(3, 6, 37, dtype, 0.0173),
      { ...wholeMatrix(2, 7, 21, dtype, 3), firstRow: 3, inWidth: 30, inFrom: 5, outWidth: 19, outFrom: 11 },
    ]),
    ...DECODED_BLOCKS.flatMap((dtype) => [
      wholeMatrix(1, 9, 256, dtype),
      wholeMatrix(7, 6, 1280, dtype, 3),
      { ...wholeMatrix(2, 7, 512, dtype), firstRow: 3, inWidth: 521, inFrom: 5, outWidth: 19, outFrom: 11 },
    ]),
    wholeMatrix(1, 3, 1, "BF16"),
    { ...wholeMatrix(3, 6, 24, "BF16"), inFrom: 2 * 24, outWidth: 7, outFrom: 4 * 7 + 1 },
    wholeMatrix(5, 4, 1025, "BF16"),
    wholeMatrix(2, 5, 2050, "F8_E4M3", 0.01),
    wholeMatrix(131, 5, 30, "F16"),
    wholeMatrix(19, 67, 260, "F8_E5M2", 0.3),
  ],
  // Without assumptions the error of an output is at most roundingsOf(cols) times its sum|w x|, which
  // test/kernels/linear.test.ts tests. For terms of random sign, as in the cases, that sum is about sqrt(cols) / 2
  // times the largest |out|; so this bound holds for such operands only.
  bound: ({ cols }) => roundingsOf(cols) * (1 + Math.sqrt(cols) / 2) * ROUNDING,
  oracle(p, [weight, x], out) {
    for (let t = 0; t < p.tokens; t++) {
      for (let r = 0; r < p.rows; r++) {
        let sum = 0;
        for (let k = p.cols - 1; k >= 0; k--) {
          sum += p.scale * weight![(p.firstRow + r) * p.cols + k]! * x![t * p.inWidth + p.inFrom + k]!;
        }
        out[t * p.outWidth + p.outFrom + r] = sum;
      }
    }
  },
  wasm: {
    fn: "linear",
    scalars: ({ tokens, rows, cols, dtype, scale, firstRow, outWidth, outFrom }) => [
      ...[tokens, rows, cols, STORED_DTYPES.indexOf(dtype), scale],
      ...[firstRow, outWidth, outFrom],
    ],
    items: ({ rows }) => Math.ceil(rows / ROWS),
    work: ({ tokens, rows, cols }) => (tokens + 4) * rows * cols, // decoding a weight takes as long as four products
    scratch: () => 192 + 4 * ROWS * BLOCK, // sums of a tile, its rows of a block
    parts: (p) =>
      Array.from({ length: Math.ceil(p.tokens / PART) }, (_, i) => ({
        ...p,
        tokens: Math.min(PART, p.tokens - i * PART),
        inFrom: p.inFrom + i * PART * p.inWidth,
        outFrom: p.outFrom + i * PART * p.outWidth,
      })),
    // x in the order in which the tiles read it, two tokens side by side
    shared: ({ tokens, cols, inWidth, inFrom }) => ({
      fn: "packTokens",
      operand: 1,
      scalars: [tokens, cols, inWidth, inFrom],
      items: Math.ceil(tokens / 2),
      work: 4 * tokens * cols,
      bytes: 16 * tokens * Math.ceil(cols / 4),
    }),
  },
  benchmark: { p: wholeMatrix(64, 1024, 2048, "BF16"), work: 2 * 64 * 1024 * 2048, unit: "GFLOP/s" },
};
