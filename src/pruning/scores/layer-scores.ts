/** Scores of whole layers: what the model loses without each of them. */
import { IsologitError } from "../../core/errors.ts";
import type { Layer } from "../../families/structure.ts";

/** Sums over the tokens of one prompt, for each layer. */
export interface PromptSums {
  /** squared distance of the final norm's output, with the layer and without it */
  readonly mse: Float64Array;
  /** KL divergence of the logits, nats */
  readonly kl: Float64Array;
  /** squared distance of the logits */
  readonly logits: Float64Array;
  /** 1 - cosine of the layer's input and its output */
  readonly cosine: Float64Array;
  /** squared length of the model's logits */
  parentLogits: number;
}

export function createPromptSums(layers: number): PromptSums {
  const create = () => new Float64Array(layers);
  return { mse: create(), kl: create(), logits: create(), cosine: create(), parentLogits: 0 };
}

/** The scores of a layer; null: not computed, because no run skipped the layer. */
export interface LayerScore {
  /** number of the layer in the source */
  readonly layer: number;
  readonly kind: string;
  /** mean squared difference of an element of the final norm's output, with the layer and without it */
  readonly mse: number | null;
  /** mean KL divergence of the logits from those without the layer, nats per token */
  readonly kl: number | null;
  /** squared distance of the logits divided by their squared length */
  readonly logitsNmse: number | null;
  /** mean over tokens of 1 - cosine of the layer's input and its output */
  readonly cosine: number;
  /** mean over prompts of the layer's rank by that prompt's `mse`; 0: the least */
  readonly rank: number | null;
}

/**
 * The scores of all layers from the sums of all prompts.
 *
 * @param skipped whether runs without each layer were made
 * @throws NON_FINITE, naming the layer
 */
export function layerScores(
  layers: readonly Layer[],
  sums: readonly PromptSums[],
  {
    tokens,
    hidden,
    skipped,
  }: { readonly tokens: number; readonly hidden: number; readonly skipped: boolean },
): readonly LayerScore[] {
  const total = (of: (prompt: PromptSums) => number) => sums.reduce((sum, prompt) => sum + of(prompt), 0);
  const ranks = sums.map(({ mse }) => ranksOf(mse));
  const parentLogits = total((prompt) => prompt.parentLogits);
  return layers.map(({ index, kind }, at) => {
    const ifSkipped = (value: () => number) => (skipped ? value() : null);
    const score: LayerScore = {
      ...{ layer: index, kind },
      mse: ifSkipped(() => total(({ mse }) => mse[at]!) / (tokens * hidden)),
      kl: ifSkipped(() => total(({ kl }) => kl[at]!) / tokens),
      logitsNmse: ifSkipped(() => total(({ logits }) => logits[at]!) / parentLogits),
      cosine: total(({ cosine }) => cosine[at]!) / tokens,
      rank: ifSkipped(() => ranks.reduce((sum, rank) => sum + rank[at]!, 0) / ranks.length),
    };
    refuseNonFinite(score);
    return score;
  });
}

function refuseNonFinite(score: LayerScore): void {
  for (const name of ["mse", "kl", "logitsNmse", "cosine"] as const) {
    const value = score[name];
    if (value === null || Number.isFinite(value)) continue;
    const message = `the ${name} score of layer ${score.layer} (${score.kind}) is ${value}`;
    const next = "run `logits` with the same prompts: an activation is not finite; repair the weights";
    throw new IsologitError("NON_FINITE", message, {}, { next });
  }
}

/**
 * Whether the prompts suffice to rank layers: Spearman's correlation of `mse` over the prompts 0, 2, 4 … with `mse` over the
 * prompts 1, 3, 5 …
 *
 * @param lengths tokens of each prompt
 * @returns null for one prompt, and where either half scores all layers equally
 */
export function rankStability(sums: readonly PromptSums[], lengths: readonly number[]): number | null {
  if (sums.length < 2) return null;
  const halves = [0, 1].map((half) => {
    const own = [...sums.keys()].filter((i) => i % 2 === half);
    const tokens = own.reduce((sum, i) => sum + lengths[i]!, 0);
    return sums[0]!.mse.map((_, at) => own.reduce((sum, i) => sum + sums[i]!.mse[at]!, 0) / tokens);
  });
  const correlation = pearson(ranksOf(halves[0]!), ranksOf(halves[1]!));
  return Number.isFinite(correlation) ? correlation : null;
}

/** The rank of each value from 0, the least; equal values share the mean of their ranks. */
export function ranksOf(values: Float64Array): Float64Array {
  const order = [...values.keys()].sort((a, b) => values[a]! - values[b]!);
  const ranks = new Float64Array(values.length);
  for (let from = 0; from < order.length; ) {
    let to = from + 1;
    while (to < order.length && values[order[to]!] === values[order[from]!]) to++;
    for (const at of order.slice(from, to)) ranks[at] = (from + to - 1) / 2;
    from = to;
  }
  return ranks;
}

/** Correlation of two lists; NaN if one of them is constant. */
function pearson(a: Float64Array, b: Float64Array): number {
  const mean = (values: Float64Array) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [meanA, meanB] = [mean(a), mean(b)];
  let [ab, aa, bb] = [0, 0, 0];
  for (const [i, value] of a.entries()) {
    ab += (value - meanA) * (b[i]! - meanB);
    aa += (value - meanA) ** 2;
    bb += (b[i]! - meanB) ** 2;
  }
  return ab / Math.sqrt(aa * bb);
}
