/** Widths and constants of a mixture of experts of the Mixtral kind, computed from its settings. */
import type { AttentionDims } from "../parts/attention/dims.ts";
import type { MlpDims } from "../parts/mlp/dims.ts";
import { expertWidths, type MoeDims } from "../parts/moe/dims.ts";
import { blockWidths, flagIn } from "../parts/widths.ts";
import type { Settings } from "../structure.ts";

/** A width is 0 where no layer of the model uses it. */
export interface MixtralDims extends AttentionDims, MlpDims, MoeDims {
  /** 1: the token table is the head */
  readonly tied: number;
}

/** @throws CONFIG_INVALID where a token cannot choose as many experts as the settings ask */
export const dims = (settings: Settings): MixtralDims => ({
  ...blockWidths(settings),
  ...expertWidths(settings),
  routeNormalise: flagIn(settings, "routeNormalise"),
  tied: flagIn(settings, "tied"),
});
