/** Chooses a token from logits: the best token or a random one. A seed gives the same tokens on every machine. */
import { IsologitError } from "../../core/errors.ts";
import { splitMix64 } from "../../core/random.ts";

export interface Sampling {
  /** divisor of the logits; 0, the default, always chooses the best token */
  readonly temperature?: number;
  /** chooses among this number of best tokens; default all */
  readonly topK?: number;
  /** chooses among the fewest best tokens that together have this probability, 0 to 1; default 1 */
  readonly topP?: number;
  /** seed of the random numbers; default 0 */
  readonly seed?: number;
}

/**
 * Creates a function that chooses the next token from logits [vocab]. Of two equal logits, the lower id ranks first.
 *
 * @throws NON_FINITE, from the returned function, where a logit is NaN or infinite
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
    const nucleus = shares.subarray(0, indexReaching(shares, (topP ?? 1) * sumOf(shares)) + 1);
    const drawn = Number(words() >> 11n) / 2 ** 53; // in [0, 1)
    return candidates[indexReaching(nucleus, drawn * sumOf(nucleus))]!;
  };
}

function bestOf(logits: Float32Array): number {
  let best = 0;
  for (let id = 1; id < logits.length; id++) if (logits[id]! > logits[best]!) best = id;
  return best;
}

const sumOf = (shares: Float64Array): number => shares.reduce((sum, share) => sum + share, 0);

/** The first index up to which the sum of shares reaches `wanted`; the last index where rounding makes the sum too small. */
function indexReaching(shares: Float64Array, wanted: number): number {
  let sum = 0;
  for (const [index, share] of shares.entries()) {
    sum += share;
    if (sum >= wanted) return index;
  }
  return shares.length - 1;
}
