import type { StreamDims } from "../stages.ts";

/** Widths of an MLP, gated or not. */
export interface MlpDims extends StreamDims {
  /** inner width */
  readonly ffn: number;
  /** 1: all projections have biases */
  readonly mlpBias: number;
}
