/** The text of the tokens at which two models part, for eyes. */
import type { Checkpoint } from "../core/checkpoint.ts";
import { tokenizerOf } from "../tokenizer/tokenizer.ts";
import type { PositionsSummary } from "./metrics.ts";

/** Tokens of the prompt shown before the one in question. */
const BEFORE = 8;

/** `positions` with text where the checkpoint has a tokenizer; it is not opened where no position is bad. */
export async function addTexts(
  positions: PositionsSummary,
  ids: readonly number[],
  model: Checkpoint,
): Promise<PositionsSummary> {
  if (positions.worst.length === 0) return positions;
  const tokenizer = await tokenizerOf(model);
  if (tokenizer === null) return positions;
  const one = (id: number | null) => (id === null ? null : tokenizer.decode([id]));
  const worst = positions.worst.map((at) => ({
    ...at,
    text: {
      before: tokenizer.decode(ids.slice(Math.max(0, at.position - BEFORE), at.position)),
      token: tokenizer.decode([at.id]),
      bestA: one(at.bestA),
      bestB: one(at.bestB),
    },
  }));
  return { ...positions, worst };
}
