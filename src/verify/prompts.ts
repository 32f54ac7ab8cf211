/** What the forward passes read: token ids, given or drawn from a seed. */
import type { PromptOptions } from "../api.ts";
import { IsologitError } from "../core/errors.ts";

export const DEFAULT_TOKENS = 64;

/** SplitMix64 (Steele, Lea, Flood 2014): 64-bit words from a seed, the same on every machine. */
export function* splitMix64(seed: number): Generator<bigint, never> {
  for (let state = BigInt(seed); ; ) {
    state = BigInt.asUintN(64, state + 0x9e3779b97f4a7c15n);
    let z = state;
    z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
    z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn);
    yield z ^ (z >> 31n);
  }
}

/** @throws USAGE for an id outside the vocabulary, or no token at all */
export function promptIds(
  { ids, tokens = DEFAULT_TOKENS, seed = 0 }: PromptOptions,
  vocab: number,
): readonly number[] {
  if (ids === undefined) {
    if (!Number.isSafeInteger(tokens) || tokens < 1)
      throw new IsologitError("USAGE", `--tokens is ${tokens}, expected at least 1`);
    const words = splitMix64(seed);
    return Array.from({ length: tokens }, () => Number(words.next().value % BigInt(vocab)));
  }
  const outside = ids.find((id) => !Number.isSafeInteger(id) || id < 0 || id >= vocab);
  if (outside !== undefined)
    throw new IsologitError("USAGE", `token id ${outside} is outside this vocabulary of ${vocab}`);
  if (ids.length === 0) throw new IsologitError("USAGE", "no token id was given");
  return ids;
}
