/**
 * The search for a shape: all shapes of a grid that are within the limits, those with the least estimated divergence measured
 * together in one reading of the weights, the best of them chosen.
 */
import type { ModelWithScales } from "../../checkpoint/load.ts";
import type { RunOptions } from "../../checkpoint/options.ts";
import { IsologitError } from "../../core/errors.ts";
import { mainLayers } from "../../families/model.ts";
import type { Damage } from "../damage.ts";
import type { ShapeRank } from "../options.ts";
import type { FittingShapes, SizedShape } from "../sizes/candidates.ts";
import type { PrunedShape } from "../sizes/shape.ts";
import type { LayerCut } from "./cut-runs.ts";
import { type EstimateScores, estimatorOf } from "./estimate.ts";
import { measureCuts } from "./measure.ts";
import type { MeasuredShape, ShapeSearch } from "./report.ts";

const MEASURED = 32;

interface SearchRequest<C extends LayerCut> {
  readonly fitting: FittingShapes;
  readonly scores: EstimateScores;
  /** what stays in a shape */
  readonly cutOf: (shape: PrunedShape) => C | Promise<C>;
  /** token ids; each prompt begins with an empty state */
  readonly prompts: readonly (readonly number[])[];
  /** number of shapes that are measured; default 32 */
  readonly candidates?: number;
  /** default "kl" */
  readonly rank?: ShapeRank;
}

export interface FoundShape<C extends LayerCut> {
  readonly shape: PrunedShape;
  readonly cut: C;
  readonly damage: Damage;
  readonly search: ShapeSearch;
  /** number of times that the weights were read */
  readonly readings: number;
  readonly backend: string;
  readonly device: string;
}

/**
 * Searches the best shape.
 *
 * @throws USAGE for a number of candidates below 1, and the errors of `measureCuts`
 */
export async function searchShape<C extends LayerCut>(
  model: ModelWithScales,
  { fitting, scores, cutOf, prompts, candidates = MEASURED, rank = "kl" }: SearchRequest<C>,
  options: RunOptions,
): Promise<FoundShape<C>> {
  if (!Number.isSafeInteger(candidates) || candidates < 1)
    throw new IsologitError("USAGE", `\`candidates\` is ${candidates}, expected at least 1`);
  const likely = likelyShapes(fitting.fitting, estimatorOf(mainLayers(model), scores)).slice(0, candidates);
  const cuts: C[] = [];
  for (const { shape } of likely) cuts.push(await cutOf(shape));
  const { damages, ...run } = await measureCuts(model, cuts, prompts, options);
  const cost = (damage: Damage) => {
    const value = COSTS[rank](damage);
    return Number.isNaN(value) ? Number.POSITIVE_INFINITY : value; // a shape whose logits are not finite is never chosen
  };
  // the sort is stable: of equal shapes the one with the lower estimate is chosen
  const order = [...likely.keys()].sort((a, b) => cost(damages[a]!) - cost(damages[b]!));
  const [best] = order as [number, ...number[]];
  return {
    ...{ shape: likely[best]!.shape, cut: cuts[best]!, damage: damages[best]! },
    search: {
      ...{ enumerated: fitting.enumerated, fits: fitting.fitting.length },
      measured: order.map((i) => measuredShape(likely[i]!, damages[i]!)),
    },
    ...run,
  };
}

/** Shapes by their estimate, the least first; of equal estimates the one with more parameters first. */
export function likelyShapes(
  shapes: readonly SizedShape[],
  estimate: (shape: PrunedShape) => number,
): readonly SizedShape[] {
  return shapes
    .map((sized) => ({ sized, loss: estimate(sized.shape) }))
    .sort((a, b) => a.loss - b.loss || b.sized.parameters - a.sized.parameters)
    .map(({ sized }) => sized);
}

/** What the best shape has least of. */
const COSTS: Readonly<Record<ShapeRank, (damage: Damage) => number>> = {
  kl: ({ klMean }) => klMean,
  agreement: ({ top1 }) => -top1,
  accuracy: ({ accuracyPruned }) => -accuracyPruned,
  nll: ({ nllPruned }) => nllPruned,
};

const measuredShape = (
  { shape: { counts, ffn }, parameters, memory }: SizedShape,
  { klMean, top1, nllPruned: nll, accuracyPruned: accuracy }: Damage,
): MeasuredShape => ({
  ...{ counts, ffn, parameters, memory: memory?.total ?? null },
  ...{ klMean, top1, nll, accuracy },
});
