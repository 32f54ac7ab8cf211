/** How the models of a family differ in Megatron's GPTModel. */
import type { AttentionDims } from "../attention/dims.ts";

export interface GptDims extends AttentionDims {
  /** inner width of an MLP */
  readonly ffn: number;
  /** 1: the projections of MLPs have biases */
  readonly mlpBias: number;
  /** 1: the token table is the head; absent in families that never tie */
  readonly tied?: number;
  /** experts of a layer, and the inner width of one; absent in dense families */
  readonly experts?: number;
  readonly moeFfn?: number;
}

export interface GptTraits {
  /** kinds of layers with attention */
  readonly attention: readonly string[];
  /** the norms are layer norms with a bias; else RMS norms */
  readonly layerNorm: boolean;
  /** MLPs have a gate */
  readonly gated: boolean;
}
