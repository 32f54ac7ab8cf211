/**
 * Causal attention with shared keys and values: query head a reads key-value head floor(a / (heads / kvHeads)).
 * Scores are scale * q.k; there is no positional encoding. Needs four rows of scores, not [T, T]. The first keys and
 * values may belong to earlier tokens.
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
  /** factor of q.k, at least 0; most models use 1 / sqrt(dim) */
  readonly scale: number;
  /** how many tokens a query sees, itself included: those just before it. 0: all earlier tokens and itself */
  readonly window: number;
}

/** The largest number of keys that a query sees. */
export const mostKeys = ({ tokens, past, window }: AttentionParams): number =>
  window === 0 ? past + tokens : Math.min(window, past + tokens);

const usual = (dim: number) => ({ dim, scale: 1 / Math.sqrt(dim), window: 0 });

export const attentionDefinition: KernelDefinition<AttentionParams> = {
  id: "attention",
  inputs: ({ tokens, past, heads, kvHeads, dim }) => [
    { name: "q", length: tokens * heads * dim, dtype: "F32" }, // [T, heads, dim]
    { name: "k", length: (past + tokens) * kvHeads * dim, dtype: "F32" }, // [past + T, kvHeads, dim]
    { name: "v", length: (past + tokens) * kvHeads * dim, dtype: "F32" }, // [past + T, kvHeads, dim]
  ],
  output: ({ tokens, heads, dim }) => ({ name: "out", length: tokens * heads * dim, dtype: "F32" }),
  cases: [
    { tokens: 1, past: 0, heads: 2, kvHeads: 1, ...usual(6) },
    { tokens: 7, past: 0, heads: 6, kvHeads: 3, ...usual(5) },
    { tokens: 13, past: 0, heads: 8, kvHeads: 2, ...usual(16) },
    { tokens: 50, past: 0, heads: 2, kvHeads: 2, ...usual(64) },
    { tokens: 1, past: 34, heads: 6, kvHeads: 2, ...usual(10) },
    { tokens: 1, past: 140, heads: 4, kvHeads: 2, ...usual(132) },
    { tokens: 19, past: 18, heads: 4, kvHeads: 2, ...usual(12) },
    { tokens: 6, past: 1, heads: 2, kvHeads: 1, ...usual(9) },
    { tokens: 7, past: 0, heads: 4, kvHeads: 2, ...usual(5), window: 1 },
    { tokens: 50, past: 0, heads: 2, kvHeads: 1, ...usual(16), window: 18 },
    { tokens: 23, past: 30, heads: 2, kvHeads: 2, ...usual(12), window: 3 },
    { tokens: 9, past: 4, heads: 4, kvHeads: 2, dim: 10, scale: 0.0625, window: 40 },
    { tokens: 1, past: 140, heads: 2, kvHeads: 1, ...usual(24), window: 17 },
    { tokens: 1, past: 300, heads: 2, kvHeads: 2, dim: 20, scale: 0.5, window: 150 },
  ],
  // The error of a score is dim / 4 + 5 roundings of scale sum|q k|, which is about 0.64 scale dim for normal operands.
  // The exponential has this as its relative error, and the share twice this. The sum over the values adds one rounding
  // for each token; exp and division add 5.
  bound: (p) => (2 * 0.64 * p.scale * p.dim * (p.dim / 4 + 5) + mostKeys(p) + 5) * ROUNDING,
  oracle({ tokens, past, heads, kvHeads, dim, scale, window }, [q, k, v], out) {
    for (let a = 0; a < heads; a++) {
      const shared = Math.floor((a * kvHeads) / heads);
      for (let t = 0; t < tokens; t++) {
        const query = (t * heads + a) * dim;
        // One pass over the keys, which rescales the sums whenever a larger score is found.
        const mix = new Float64Array(dim);
        let peak = -Infinity;
        let sum = 0;
        for (let s = 0; s <= past + t; s++) {
          if (window > 0 && s <= past + t - window) continue;
          const key = (s * kvHeads + shared) * dim;
          let score = 0;
          for (let i = 0; i < dim; i++) score += q![query + i]! * k![key + i]!;
          score *= scale;
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
    scalars: (p) => [p.tokens, p.past, p.heads, p.kvHeads, p.dim, p.scale, mostKeys(p)],
    items: ({ heads }) => heads,
    work: (p) => 2 * p.tokens * Math.min(mostKeys(p), p.past + p.tokens / 2) * p.heads * p.dim,
    // results, sums, scores and values of four queries; the keys and values of one head
    scratch: ({ tokens, past, dim }) =>
      144 + 64 * Math.ceil((past + tokens + 3) / 4) + 4 * (4 + 2 * (past + tokens)) * 8 * Math.ceil(dim / 8),
  },
  benchmark: {
    p: { tokens: 128, past: 0, heads: 8, kvHeads: 2, ...usual(128) },
    work: 2 * 128 ** 2 * 8 * 128,
    unit: "GFLOP/s",
  },
};
