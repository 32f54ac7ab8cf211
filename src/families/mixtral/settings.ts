/** Settings of a mixture of experts of the Mixtral kind, and its layers. */

import type { AttentionSettings } from "../parts/attention/settings.ts";
import { blockLayers } from "../parts/blocks.ts";

/** Attention, attention with a window, MLP, experts. */
export const KINDS = ["attention", "sliding_attention", "mlp", "moe"] as const;

/** Kinds of layers with attention. */
export const ATTENTION = ["attention", "sliding_attention"] as const;

export const layers = blockLayers({ "*": "attention", s: "sliding_attention", "-": "mlp", E: "moe" });

/** Settings of the forward pass. A setting that no layer of the model uses is absent. */
export interface MixtralSettings extends AttentionSettings {
  /** a letter for each layer: a block is `*E`, or `*-` without experts; `s` for `*` with a window */
  readonly pattern: string;
  readonly attentionBias: boolean;
  readonly qkNorm: boolean;
  /** the token table is the head */
  readonly tied: boolean;
}
