/** Widths of an attention layer with rotary positions. */
import type { RotarySpec } from "../../../../kernels/rotary-table.ts";
import type { StreamDims } from "../stages.ts";

export interface AttentionDims extends StreamDims {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** heads * headDim, which need not be the hidden width */
  readonly q: number;
  /** kvHeads * headDim */
  readonly kv: number;
  /** 1: the projections of queries, keys and values have biases */
  readonly qkvBias: number;
  /** 1: the output projection has a bias */
  readonly outBias: number;
  /** 1: RMS norms over each head of queries and keys, before the rotation */
  readonly qkNorm: number;
  /** factor of the products of queries and keys */
  readonly scoreScale: number;
  /** tokens that a layer with a window sees, with itself; 0: no layer has one */
  readonly window: number;
  /** null: the model has no positions */
  readonly rotary: RotarySpec | null;
}
