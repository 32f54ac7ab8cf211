import type { StreamDims } from "../stages.ts";

/** Widths of a gated MLP. */
export interface MlpDims extends StreamDims {
  /** inner width */
  readonly ffn: number;
  /** 1: all three projections have biases */
  readonly mlpBias: number;
}
