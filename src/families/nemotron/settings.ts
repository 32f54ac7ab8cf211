/** Settings of a Nemotron model, and its layers. */
import { blockLayers } from "../parts/blocks.ts";
import type { RotarySettings } from "../parts/rotary.ts";

export const KINDS = ["attention", "mlp"] as const;

export const layers = blockLayers({ "*": "attention", "-": "mlp" });

/** Settings of the forward pass. */
export interface NemotronSettings extends RotarySettings {
  /** a letter for each layer: a block is `*-` */
  readonly pattern: string;
  readonly hidden: number;
  readonly vocab: number;
  readonly eps: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly ffn: number;
  readonly attentionBias: boolean;
  readonly mlpBias: boolean;
}
