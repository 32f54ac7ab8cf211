/** Settings of a dense model of the Llama kind, and its layers. */

import type { AttentionSettings } from "../parts/attention/settings.ts";
import { blockLayers } from "../parts/blocks.ts";

/** Attention, attention with a window, MLP. */
export const KINDS = ["attention", "sliding_attention", "mlp"] as const;

/** Kinds of layers with attention. */
export const ATTENTION = ["attention", "sliding_attention"] as const;

const LETTERS: Readonly<Record<string, (typeof KINDS)[number]>> = {
  "*": "attention",
  s: "sliding_attention",
  "-": "mlp",
};

/** Settings of the forward pass. */
export interface LlamaSettings extends AttentionSettings {
  /** a letter for each layer: a block is `*-`, or `s-` with a window */
  readonly pattern: string;
  readonly ffn: number;
  readonly qkvBias: boolean;
  readonly outBias: boolean;
  readonly mlpBias: boolean;
  readonly qkNorm: boolean;
  /** the token table is the head */
  readonly tied: boolean;
}

export const layers = blockLayers(LETTERS);

/** The pattern of a model. @param windows whether each block has a window */
export const patternOf = (windows: readonly boolean[]): string =>
  windows.map((window) => (window ? "s-" : "*-")).join("");
