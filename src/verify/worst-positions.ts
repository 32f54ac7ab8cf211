/** Decoded text of the positions with the largest KL divergence. */
import type { Checkpoint } from "../core/checkpoint.ts";
import { tokenizerOf } from "../tokenizer/tokenizer.ts";
import type { PositionsSummary } from "./metrics.ts";

/** Number of prompt tokens shown before the position. */
const BEFORE = 8;

/** Adds text to `positions` where the checkpoint has a tokenizer. The tokenizer is opened only where a position differs. */
export async function addPositionTexts(
  positions: PositionsSummary,
  ids: readonly number[],
  model: Checkpoint,
): Promise<PositionsSummary> {
  if (positions.worst.length === 0) return positions;
  const tokenizer = await tokenizerOf(model);
  if (tokenizer === null) return positions;
  const decode = (id: number | null) => (id === null ? null : tokenizer.decode([id]));
  const worst = positions.worst.map((at) => ({
    ...at,
    text: {
      before: tokenizer.decode(ids.slice(Math.max(0, at.position - BEFORE), at.position)),
      token: tokenizer.decode([at.id]),
      bestA: decode(at.bestA),
      bestB: decode(at.bestB),
    },
  }));
  return { ...positions, worst };
}
