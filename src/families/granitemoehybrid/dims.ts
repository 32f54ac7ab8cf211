/** Widths and multipliers of a Granite 4.0 model, computed from its settings. */
import { IsologitError } from "../../core/errors.ts";
import { type HybridDims, hybridDims } from "../parts/hybrid/dims.ts";
import type { MoeDims } from "../parts/moe/dims.ts";
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
  const of = (name: string) => Number(settings[name] ?? 0);
  if (of("topK") > of("experts"))
    throw new IsologitError(
      "CONFIG_INVALID",
      `a token cannot choose ${of("topK")} of ${of("experts")} experts`,
    );
  return {
    ...hybridDims(settings),
    scoreScale: of("attentionMultiplier"),
    ...{ experts: of("experts"), topK: of("topK"), moeFfn: of("moeFfn"), routeNormalise: 1 },
    embeddingMultiplier: of("embeddingMultiplier"),
    residualMultiplier: of("residualMultiplier"),
    logitsScaling: of("logitsScaling"),
  };
}
