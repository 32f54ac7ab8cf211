/** Searches the cut of a model that fits a size, by the scores that `importance` wrote. */
import type { ModelWithScales } from "../../checkpoint/load.ts";
import type { RunOptions } from "../../checkpoint/options.ts";
import { mainLayers } from "../../families/model.ts";
import type { Cut } from "../cut.ts";
import type { ShapeOptions } from "../options.ts";
import type { StoredScores } from "../scores/stored-scores.ts";
import { selectCut } from "../select.ts";
import type { FittingShapes } from "../sizes/candidates.ts";
import { type PrunedShape, wholeShape } from "../sizes/shape.ts";
import type { EstimateScores } from "./estimate.ts";
import type { ShapeSearchOptions } from "./options.ts";
import { type FoundShape, searchShape } from "./search.ts";

/**
 * @param fitting shapes within the limits
 * @param prompts token ids; each prompt begins with an empty state
 * @throws the errors of `Scores.read` and of `measureCuts`
 */
export async function findCut(
  model: ModelWithScales,
  fitting: FittingShapes,
  scores: StoredScores,
  prompts: readonly (readonly number[])[],
  options: ShapeSearchOptions & Pick<ShapeOptions, "score" | "layerScore"> & RunOptions,
): Promise<FoundShape<Cut>> {
  const { ffn: whole } = wholeShape(model);
  const cutOf = ({ counts, ffn }: PrunedShape) => {
    const widths = ffn === whole ? {} : { ffn };
    return selectCut(model, { widths, counts, drop: null }, scores, options);
  };
  const { candidates, rank } = options;
  const request = {
    ...{ fitting, cutOf, prompts, scores: await estimateScores(model, scores, options) },
    ...(candidates !== undefined && { candidates }),
    ...(rank !== undefined && { rank }),
  };
  return await searchShape(model, request, options);
}

async function estimateScores(
  model: ModelWithScales,
  scores: StoredScores,
  { score = "contribution", layerScore = "mse" }: Pick<ShapeOptions, "score" | "layerScore">,
): Promise<EstimateScores> {
  const layers = mainLayers(model);
  const ofLayers = (name: string) => scores.read(`layer.${name}`, layers.length);
  const ranking = await ofLayers(layerScore);
  const { ffn } = wholeShape(model);
  const channels = new Map<number, readonly number[]>();
  for (const { index, kind } of layers)
    if (kind === "mlp") channels.set(index, await scores.read(`ffn.${score}.${index}`, ffn));
  return { ranking, loss: scores.has("layer.kl") ? await ofLayers("kl") : ranking, channels };
}
