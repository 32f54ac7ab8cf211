/** Widths of models with attention, Mamba-2 and gated MLPs. */

import type { Settings } from "../../structure.ts";
import type { AttentionDims } from "../attention/dims.ts";
import { type MambaDims, mambaWidths } from "../mamba/dims.ts";
import type { MlpDims } from "../mlp/dims.ts";
import { blockWidths, flagIn } from "../widths.ts";

export interface HybridDims extends AttentionDims, MambaDims, MlpDims {
  /** 1: the token table is the head */
  readonly tied: number;
}

/** The widths that settings describe, with one norm over the whole inner width of a Mamba mixer, after the gate. */
export const hybridDims = (settings: Settings): HybridDims => ({
  ...blockWidths(settings),
  ...mambaWidths(settings),
  ...{ normGroups: 1, normFirst: 0 },
  inBias: flagIn(settings, "mambaProjBias"),
  ssmOutBias: flagIn(settings, "mambaProjBias"),
  tied: flagIn(settings, "tied"),
});
