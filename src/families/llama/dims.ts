/** Widths and constants of a dense model of the Llama kind, computed from its settings. */
import type { AttentionDims } from "../parts/attention/dims.ts";
import type { MlpDims } from "../parts/mlp/dims.ts";
import { blockWidths, flagIn } from "../parts/widths.ts";
import type { Settings } from "../structure.ts";

export interface LlamaDims extends AttentionDims, MlpDims {
  /** 1: the token table is the head */
  readonly tied: number;
}

export const dims = (settings: Settings): LlamaDims => ({
  ...blockWidths(settings),
  qkvBias: flagIn(settings, "qkvBias"),
  outBias: flagIn(settings, "outBias"),
  tied: flagIn(settings, "tied"),
});
