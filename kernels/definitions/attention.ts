/**
 * Causal attention with shared keys and values: query head a reads key-value head floor(a / (heads / kvHeads)).
 * Scores are q.k / sqrt(dim); there is no positional encoding. Needs four rows of scores, not [T, T]. The first
 * keys and values may belong to earlier tokens.
 */
import { type KernelDefinition, ROUNDING } from "../kernel.ts";

export interface AttentionParams {
  readonly tokens: number;
  /** earlier tokens, which have keys and values only */
  readonly past: number;
  readonly heads: number;
  readonly kvHeads: number;
  /** width of one head */
  readonly dim: number;
}

export const attentionDefinition: KernelDefinition<AttentionParams> = {
  id: "attention",
  inputs: ({ tokens, past, heads, kvHeads, dim }) => [
    { name: "q", length: tokens * heads * dim, dtype: "F32" }, // [T, heads, dim]
    { name: "k", length: (past + tokens) * kvHeads * dim, dtype: "F32" }, // [past + T, kvHeads, dim]
    { name: "v", length: (past + tokens) * kvHeads * dim, dtype: "F32" }, // [past + T, kvHeads, dim]
  ],
  output: ({ tokens, heads, dim }) => ({ name: "out", length: tokens * heads * dim, dtype: "F32" }),
  cases: [
    { tokens: 1, past: 0, heads: 2, kvHeads: 1, dim: 6 },
    { tokens: 7, past: 0, heads: 6, kvHeads: 3, dim: 5 },
    { tokens: 13, past: 0, heads: 8, kvHeads: 2, dim: 16 },
    { tokens: 50, past: 0, heads: 2, kvHeads: 2, dim: 64 },
    { tokens: 1, past: 34, heads: 6, kvHeads: 2, dim: 10 },
    { tokens: 1, past: 140, heads: 4, kvHeads: 2, dim: 132 },
    { tokens: 19, past: 18, heads: 4, kvHeads: 2, dim: 12 },
    { tokens: 6, past: 1, heads: 2, kvHeads: 1, dim: 9 },
  ],
  // The error of a score is dim / 4 + 5 roundings of sum|q k| / sqrt(dim), which is about 0.64 sqrt(dim) for normal
  // operands. The exponential has this as its relative error, and the share twice this. The sum over the values adds
  // one rounding for each token; exp and division add 5.
  bound: ({ tokens, past, dim }) =>
    (2 * 0.64 * Math.sqrt(dim) * (dim / 4 + 5) + past + tokens + 5) * ROUNDING,
  oracle({ tokens, past, heads, kvHeads, dim }, [q, k, v], out) {
    for (let a = 0; a < heads; a++) {
      const shared = Math.floor((a * kvHeads) / heads);
      for (let t = 0; t < tokens; t++) {
        const query = (t * heads + a) * dim;
        // One pass over the keys, which rescales the sums whenever a larger score is found.
        const mix = new Float64Array(dim);
        let peak = -Infinity;
        let sum = 0;
        for (let s = 0; s <= past + t; s++) {
          const key = (s * kvHeads + shared) * dim;
          let score = 0;
          for (let i = 0; i < dim; i++) score += q![query + i]! * k![key + i]!;
          score /= Math.sqrt(dim);
          const keep = Math.exp(Math.min(peak - score, 0));
          const share = Math.exp(Math.min(score - peak, 0));
          peak = Math.max(peak, score);
          sum = sum * keep + share;
          for (let i = 0; i < dim; i++) mix[i] = mix[i]! * keep + share * v![key + i]!;
        }
        for (let i = 0; i < dim; i++) out[query + i] = mix[i]! / sum;
      }
    }
  },
  wasm: {
    fn: "attention",
    scalars: ({ tokens, past, heads, kvHeads, dim }) => [tokens, past, heads, kvHeads, dim],
    items: ({ heads }) => heads,
    work: ({ tokens, past, heads, dim }) => tokens * (2 * past + tokens) * heads * dim,
    // results, sums, scores and values of four queries; the keys and values of one head
    scratch: ({ tokens, past, dim }) =>
      144 + 64 * Math.ceil((past + tokens + 3) / 4) + 4 * (4 + 2 * (past + tokens)) * 8 * Math.ceil(dim / 8),
  },
  benchmark: {
    p: { tokens: 128, past: 0, heads: 8, kvHeads: 2, dim: 128 },
    work: 2 * 128 ** 2 * 8 * 128,
    unit: "GFLOP/s",
  },
};
