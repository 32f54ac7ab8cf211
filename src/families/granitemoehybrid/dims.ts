/** Widths and multipliers of a Granite 4.0 model, computed from its settings. */
import { type HybridDims, hybridDims } from "../parts/hybrid/dims.ts";
import { expertWidths, type MoeDims } from "../parts/moe/dims.ts";
import { numberIn } from "../parts/widths.ts";
import type { Settings } from "../structure.ts";

/** `ffn` is the width of the MLP that each token uses. */
export interface GraniteDims extends HybridDims, MoeDims {
  readonly embeddingMultiplier: number;
  /** of the output of each layer */
  readonly residualMultiplier: number;
  /** divisor of the logits */
  readonly logitsScaling: number;
}

/** @throws CONFIG_INVALID where a token cannot choose as many experts as the settings ask */
export function dims(settings: Settings): GraniteDims {
  const of = (name: string) => numberIn(settings, name);
  return {
    ...hybridDims(settings),
    scoreScale: of("attentionMultiplier"),
    ...expertWidths(settings),
    routeNormalise: 1,
    embeddingMultiplier: of("embeddingMultiplier"),
    residualMultiplier: of("residualMultiplier"),
    logitsScaling: of("logitsScaling"),
  };
}
