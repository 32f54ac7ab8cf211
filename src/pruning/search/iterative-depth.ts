/**
 * Chooses layers one at a time: each round measures the model without each layer that may go next, and drops the layer whose
 * absence changes least. Later rounds then know what earlier rounds took away, which scores of single layers do not.
 *
 * @see Nemotron Nano 2, arXiv 2508.14444: the distance is always that from the whole model
 */
import type { ModelWithScales } from "../../checkpoint/load.ts";
import type { RunOptions } from "../../checkpoint/options.ts";
import { IsologitError } from "../../core/errors.ts";
import { mainLayers } from "../../families/model.ts";
import type { Layer } from "../../families/structure.ts";
import type { LayerCounts, ShapeOptions } from "../options.ts";
import { createPromptSums, type LayerScore, layerScores, type PromptSums } from "../scores/layer-scores.ts";
import type { AskedShape } from "../select.ts";
import type { PromptChange } from "./cut-runs.ts";
import { measureCuts } from "./measure.ts";

/** Scores that a run without the layer gives. */
const MEASURED = { mse: "mse", kl: "kl", rank: "rank", logits_nmse: "logitsNmse" } as const;
type MeasuredScore = keyof typeof MEASURED;

/** A layer that went. */
interface DepthRound {
  /** number of the layer in the source */
  readonly layer: number;
  readonly kind: string;
  /** of the source without this layer and without those of earlier rounds */
  readonly score: number;
  /** layers of which one could go in this round */
  readonly candidates: number;
  /** number of times that the weights were read in this round */
  readonly readings: number;
}

export interface IterativeDepth {
  /** the score that chose */
  readonly layerScore: MeasuredScore;
  /** in the order in which the layers went */
  readonly rounds: readonly DepthRound[];
}

/**
 * Refuses options that leave nothing to choose round by round.
 *
 * @param shape null: none was asked for
 * @returns how many layers of each kind stay, and the score
 * @throws USAGE
 */
export function iterativeRequest(
  shape: AskedShape | null,
  { layerScore = "mse" }: Pick<ShapeOptions, "layerScore">,
): { readonly counts: LayerCounts; readonly layerScore: MeasuredScore } {
  const counts = shape?.counts ?? null;
  if (counts === null) {
    const next = "give `layers`, how many of each kind stay, or leave out `iterative`";
    const message = "`iterative` drops layers until a number of them is left, and `layers` gives no number";
    throw new IsologitError("USAGE", message, {}, { next });
  }
  if (layerScore !== "cosine") return { counts, layerScore };
  const message = "`iterative` measures the model without a layer, and `layerScore` cosine does not";
  const next = `choose \`layerScore\` ${Object.keys(MEASURED).join(", ")}`;
  throw new IsologitError("USAGE", message, {}, { next });
}

/**
 * Each round reads the weights once where the memory allows it: the runs without one layer share what is equal. On WASM
 * neither `threads` nor `memoryBytes` changes a bit of the result.
 *
 * @param counts  how many layers of each kind stay; kinds that are not named stay whole
 * @param prompts token ids; each prompt begins with an empty state
 * @throws NON_FINITE, naming the layer, and the errors of `measureCuts`
 */
export async function dropInRounds(
  model: ModelWithScales,
  { counts, layerScore }: { readonly counts: LayerCounts; readonly layerScore: MeasuredScore },
  prompts: readonly (readonly number[])[],
  options: RunOptions,
): Promise<IterativeDepth> {
  const rounds: DepthRound[] = [];
  let left = mainLayers(model);
  const isSurplus = ({ kind }: Layer) =>
    left.filter((layer) => layer.kind === kind).length > (counts[kind] ?? Number.POSITIVE_INFINITY);
  for (let candidates = left.filter(isSurplus); candidates.length > 0; candidates = left.filter(isSurplus)) {
    const cuts = candidates.map((gone) => ({
      layers: left.filter((layer) => layer !== gone).map(({ index }) => index),
      ffn: new Map(),
    }));
    const { changes, readings } = await measureCuts(model, cuts, prompts, options);
    const scores = scoresOf(model, candidates, prompts, changes);
    const least = leastOf(scores, layerScore);
    const { layer, kind } = least;
    rounds.push({
      layer,
      kind,
      score: least[MEASURED[layerScore]]!,
      candidates: candidates.length,
      readings,
    });
    left = left.filter(({ index }) => index !== layer);
  }
  return { layerScore, rounds };
}

/** The scores of `importance`, of layers of which some are gone already. */
function scoresOf(
  model: ModelWithScales,
  candidates: readonly Layer[],
  prompts: readonly (readonly number[])[],
  changes: readonly (readonly PromptChange[])[],
): readonly LayerScore[] {
  const sums = prompts.map((_, i): PromptSums => {
    const ofPrompt = changes.map((ofCut) => ofCut[i]!);
    const list = (of: (change: PromptChange) => number) => Float64Array.from(ofPrompt, of);
    return {
      ...createPromptSums(candidates.length),
      mse: list(({ normDistance }) => normDistance),
      kl: list(({ kl }) => kl),
      logits: list(({ logitsDistance }) => logitsDistance),
      parentLogits: ofPrompt[0]!.logitsLength,
    };
  });
  const tokens = prompts.reduce((sum, { length }) => sum + length, 0);
  const hidden = model.family.forward.streams(model.dims).residual!;
  return layerScores(candidates, sums, { tokens, hidden, skipped: true });
}

/** Of equal scores the lower layer stays, as where all layers are chosen at once. */
function leastOf(scores: readonly LayerScore[], layerScore: MeasuredScore): LayerScore {
  const value = (score: LayerScore) => score[MEASURED[layerScore]]!; // every layer was skipped
  return scores.reduce((least, score) => (value(score) <= value(least) ? score : least));
}
