/** From logits to one token: the best, or one drawn by chance. The same seed draws the same tokens on every machine. */
import { IsologitError } from "../../core/errors.ts";
import { splitMix64 } from "../../core/random.ts";

export interface Sampling {
  /** logits are divided by it; 0, the default, takes the best token always */
  readonly temperature?: number;
  /** only so many of the best tokens */
  readonly topK?: number;
  /** only the best tokens that together have this probability, 0 to 1 */
  readonly topP?: number;
  /** default 0 */
  readonly seed?: number;
}

/**
 * Chooses token after token. Of equal logits the lower id counts as the better.
 *
 * @throws NON_FINITE where a logit is NaN or infinite
 */
export function createSampler({
  temperature = 0,
  topK,
  topP,
  seed = 0,
}: Sampling): (logits: Float32Array) => number {
  const words = splitMix64(seed);
  return (logits) => {
    const broken = logits.findIndex((logit) => !(logit < Infinity));
    if (broken >= 0) {
      const next = { next: "run `isologit check` on the checkpoint; its weights are broken" };
      throw new IsologitError("NON_FINITE", `the logit of token ${broken} is ${logits[broken]}`, {}, next);
    }
    if (temperature === 0) return bestOf(logits);
    const order = Uint32Array.from(logits, (_, id) => id).sort((a, b) => logits[b]! - logits[a]! || a - b);
    const candidates = order.subarray(0, topK ?? order.length);
    const best = logits[candidates[0]!]!;
    const shares = Float64Array.from(candidates, (id) => Math.exp((logits[id]! - best) / temperature));
    const kept = shares.subarray(0, reaching(shares, (topP ?? 1) * sumOf(shares)) + 1);
    const drawn = Number(words() >> 11n) / 2 ** 53; // of [0, 1)
    return candidates[reaching(kept, drawn * sumOf(kept))]!;
  };
}

function bestOf(logits: Float32Array): number {
  let best = 0;
  for (let id = 1; id < logits.length; id++) if (logits[id]! > logits[best]!) best = id;
  return best;
}

const sumOf = (shares: Float64Array): number => shares.reduce((sum, share) => sum + share, 0);

/** The first place up to which shares add up to `wanted`; the last where rounding leaves them short. */
function reaching(shares: Float64Array, wanted: number): number {
  let sum = 0;
  for (const [place, share] of shares.entries()) {
    sum += share;
    if (sum >= wanted) return place;
  }
  return shares.length - 1;
}
