import type { StreamDims } from "../stages.ts";

/** Widths of a layer of gated experts with a softmax router. */
export interface MoeDims extends StreamDims {
  /** 0: no layer of the model has experts */
  readonly experts: number;
  /** experts that a token chooses */
  readonly topK: number;
  /** inner width of an expert */
  readonly moeFfn: number;
  /** 1: the weights are a softmax over the chosen experts; 0: over all of them */
  readonly routeNormalise: number;
}
