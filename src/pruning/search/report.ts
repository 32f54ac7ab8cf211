/** What a search for a shape found. */
import type { PrunedShape } from "../sizes/shape.ts";

/** A shape that was run. */
export interface MeasuredShape {
  readonly counts: PrunedShape["counts"];
  readonly ffn: number;
  readonly parameters: number;
  /** bytes under the budget; null without one */
  readonly memory: number | null;
  /** mean KL(source ‖ pruned), nats */
  readonly klMean: number;
  /** fraction of positions at which the best token is that of the source */
  readonly top1: number;
  /** mean negative log likelihood of the next token, nats */
  readonly nll: number;
  /** fraction of positions whose best token is the next token */
  readonly accuracy: number;
}

export interface ShapeSearch {
  /** number of shapes of the grid */
  readonly enumerated: number;
  /** number of those within the limits */
  readonly fits: number;
  /** the best first: the first was chosen */
  readonly measured: readonly MeasuredShape[];
}
