/** Settings of models of attention layers with rotary positions. */
import type { RotarySettings } from "../rotary.ts";

export interface AttentionSettings extends RotarySettings {
  readonly hidden: number;
  readonly vocab: number;
  readonly eps: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}
