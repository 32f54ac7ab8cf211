/** What the forward passes read: token ids that are given, drawn from a seed, or those of a text. */

import type { Checkpoint } from "../core/checkpoint.ts";
import { IsologitError } from "../core/errors.ts";
import { GOLDEN, splitMix64 } from "../core/random.ts";
import { type Tokenizer, tokenizerOf } from "../tokenizer/tokenizer.ts";
import { TEXTS } from "./prompt-texts.ts";

/** What a forward pass reads; by default 64 seeded ids and, where there is a tokenizer, bundled text before them. */
export interface PromptOptions {
  /** nothing else is read then */
  readonly ids?: readonly number[];
  /** read through the checkpoint's tokenizer, in place of the bundled text */
  readonly prompt?: string;
  /** how many seeded ids; given alone, there is no text */
  readonly tokens?: number;
  /** default 0 */
  readonly seed?: number;
}

export const DEFAULT_TOKENS = 64;

/** Ids, and where they came from: enough to make them again. */
export interface Prompt {
  readonly ids: readonly number[];
  /** the first so many ids are text; the loss is measured on them */
  readonly textTokens: number;
  readonly text: string | null;
  /** of the ids after the text; null where there are none, or where ids were given */
  readonly seed: number | null;
}

/**
 * `tokens` ids that cover a vocabulary: from a first point that the seed gives, each a golden section further on, so
 * that however many there are, no stretch of the token table is left out.
 */
export function seededIds(tokens: number, seed: number, vocab: number): readonly number[] {
  let at = splitMix64(seed)();
  return Array.from({ length: tokens }, () => {
    at = BigInt.asUintN(64, at + GOLDEN);
    return Number((at * BigInt(vocab)) >> 64n);
  });
}

/**
 * The prompt that options ask for. Where they name none: text through the checkpoint's tokenizer, if it has one, and
 * seeded ids after it.
 *
 * @throws USAGE for an id outside the vocabulary, no token at all, or a text without a tokenizer
 */
export async function promptOf(options: PromptOptions, model: Checkpoint, vocab: number): Promise<Prompt> {
  const { ids, tokens, prompt, seed = 0 } = options;
  if (ids !== undefined) {
    if (prompt !== undefined) throw new IsologitError("USAGE", "both ids and a text were given");
    return { ids: checked(ids, vocab), textTokens: 0, text: null, seed: null };
  }
  if (tokens !== undefined && (!Number.isSafeInteger(tokens) || tokens < 1))
    throw new IsologitError("USAGE", `\`tokens\` is ${tokens}, expected at least 1`);
  if (prompt !== undefined) {
    const text = checked(await idsOf(prompt, model), vocab);
    const more = tokens === undefined ? [] : seededIds(tokens, seed, vocab);
    const used = tokens === undefined ? null : seed;
    return { ids: [...text, ...more], textTokens: text.length, text: prompt, seed: used };
  }
  const bundled = tokens === undefined ? await bundledIds(model, vocab) : [];
  const ours = seededIds(tokens ?? DEFAULT_TOKENS, seed, vocab);
  const text = bundled.length === 0 ? null : TEXTS.join("");
  return { ids: [...bundled, ...ours], textTokens: bundled.length, text, seed };
}

function checked(ids: readonly number[], vocab: number): readonly number[] {
  const outside = ids.find((id) => !Number.isSafeInteger(id) || id < 0 || id >= vocab);
  if (outside !== undefined)
    throw new IsologitError("USAGE", `token id ${outside} is outside this vocabulary of ${vocab}`);
  if (ids.length === 0) throw new IsologitError("USAGE", "no token id was given");
  return ids;
}

async function idsOf(text: string, model: Checkpoint): Promise<readonly number[]> {
  const tokenizer = await tokenizerOf(model);
  if (tokenizer !== null) return tokenizer.encode(text);
  const next = { next: "give token ids with `ids`" };
  throw new IsologitError("USAGE", "a text was given, and the checkpoint has no tokenizer.json", {}, next);
}

/** Ids of the bundled text, an equal share of each passage; none where the tokenizer is missing or not the model's. */
async function bundledIds(model: Checkpoint, vocab: number): Promise<readonly number[]> {
  const tokenizer = await tokenizerOf(model);
  if (tokenizer === null) return [];
  const ids = shares(tokenizer);
  return ids.every((id) => id >= 0 && id < vocab) ? ids : [];
}

function shares(tokenizer: Tokenizer): readonly number[] {
  const share = DEFAULT_TOKENS / TEXTS.length;
  return TEXTS.flatMap((text) => tokenizer.encode(text).slice(0, share));
}
