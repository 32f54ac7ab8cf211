/** Options that say what of a model stays. */

/** Scores of units. `preactivation` exists for MLP channels only: heads then go by activation. */
export const UNIT_SCORES = ["contribution", "activation", "preactivation"] as const;
export type UnitScore = (typeof UNIT_SCORES)[number];

export const LAYER_SCORES = ["mse", "kl", "rank", "logits_nmse", "cosine"] as const;
type LayerScore = (typeof LAYER_SCORES)[number];

/** By what the best of the measured shapes is chosen. */
export const SHAPE_RANKS = ["kl", "agreement", "accuracy", "nll"] as const;
export type ShapeRank = (typeof SHAPE_RANKS)[number];

/** How many layers of a kind stay. */
export type LayerCounts = Readonly<Record<string, number>>;

export interface ShapeOptions {
  /** how many layers of each kind stay, the best first; kinds that are not named stay whole */
  readonly layers?: LayerCounts;
  /** layers that go, by their numbers in the source; not with `layers` */
  readonly drop?: readonly number[];
  /** width of the MLP layers */
  readonly ffn?: number;
  readonly mambaHeads?: number;
  /**
   * with `mambaHeads`: multiply the gain of each gated norm by √(all heads / heads that stay), so that heads that say nothing
   * can go without a trace. The gains are then derived, and not bits of the source
   */
  readonly rescaleGain?: boolean;
  /** number of query heads */
  readonly heads?: number;
  /** width of the hidden state */
  readonly hidden?: number;
  /** by which score units are ranked; default "contribution" */
  readonly score?: UnitScore;
  /** by which score layers are ranked; default "mse" */
  readonly layerScore?: LayerScore;
  /**
   * drop layers one at a time, until `layers` are left: each round measures the model without each layer on the prompts, and
   * drops the layer with the least score. Scores in a file are then needed for widths only
   */
  readonly iterative?: boolean;
  /** path of the scores that `importance` wrote; needed wherever a choice is made */
  readonly importance?: string;
}
