/** Settings of a Nemotron model, and its layers. */

import type { AttentionSettings } from "../parts/attention/settings.ts";
import { blockLayers } from "../parts/blocks.ts";

export const KINDS = ["attention", "mlp"] as const;

export const layers = blockLayers({ "*": "attention", "-": "mlp" });

/** Settings of the forward pass. */
export interface NemotronSettings extends AttentionSettings {
  /** a letter for each layer: a block is `*-` */
  readonly pattern: string;
  readonly ffn: number;
  readonly attentionBias: boolean;
  readonly mlpBias: boolean;
}
