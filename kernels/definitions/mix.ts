/**
 * Weighted sums of rows: out[r] = sum over j of weight[r, j] * x[source[r, j]], in the order of j. It deals tokens out
 * to experts (one term of weight 1, which is exact) and gathers what the experts made of them.
 */
import { type Kernel, ROUNDING } from "../kernel.ts";
import { mixWgsl } from "../wgsl/router.ts";

export interface MixParams {
  /** rows of `x` */
  readonly sources: number;
  readonly rows: number;
  /** terms a row */
  readonly terms: number;
  readonly width: number;
}

export const mix: Kernel<MixParams> = {
  id: "mix",
  inputs: ({ sources, rows, terms, width }) => [
    { name: "x", length: sources * width, dtype: "F32" }, // [sources, width]
    { name: "source", length: rows * terms, dtype: "F32", below: sources }, // [rows, terms], whole numbers
    { name: "weight", length: rows * terms, dtype: "F32" }, // [rows, terms]
  ],
  output: ({ rows, width }) => ({ name: "out", length: rows * width, dtype: "F32" }), // [rows, width]
  cases: [
    { sources: 1, rows: 1, terms: 1, width: 1 },
    { sources: 3, rows: 7, terms: 1, width: 13 },
    { sources: 24, rows: 5, terms: 6, width: 37 },
    { sources: 9, rows: 40, terms: 3, width: 32 },
  ],
  // A product and at most `terms` sums a term, of magnitudes whose sum is about sqrt(terms) of the largest |out| for
  // terms of random sign, as the cases draw them.
  bound: ({ terms }) => (terms + 1) * (1 + Math.sqrt(terms)) * ROUNDING,
  oracle({ rows, terms, width }, [x, source, weight], out) {
    out.fill(0);
    // Each source spreads its row over those that want it, the last term first.
    for (let s = 0; s * width < x!.length; s++) {
      for (let i = rows * terms - 1; i >= 0; i--) {
        if (source![i] !== s) continue;
        const r = Math.floor(i / terms);
        for (let c = 0; c < width; c++) out[r * width + c]! += weight![i]! * x![s * width + c]!;
      }
    }
  },
  wasm: {
    fn: "mix",
    scalars: ({ terms, width }) => [terms, width],
    items: ({ rows }) => rows,
    work: ({ rows, terms, width }) => rows * terms * width,
  },
  wgsl: mixWgsl,
  pace: { p: { sources: 384, rows: 64, terms: 6, width: 4096 }, work: 4 * 64 * 4096 * 7, unit: "GB/s" },
};
