/** Prompts of forward passes: given token ids, ids generated from a seed, or the ids of a text. */

import type { Checkpoint } from "../core/checkpoint.ts";
import { IsologitError } from "../core/errors.ts";
import { sha256 } from "../core/hash.ts";
import { GOLDEN, splitMix64 } from "../core/random.ts";
import { tokenizerOf } from "../tokenizer/tokenizer.ts";
import { TEXTS } from "./prompt-texts.ts";

/** Options that choose the prompt. Default: as its purpose needs (`promptOf`). */
export interface PromptOptions {
  /** token ids; replaces text and seeded ids */
  readonly ids?: readonly number[];
  /** text for the checkpoint's tokenizer; replaces the bundled text */
  readonly prompt?: string;
  /** number of seeded ids; without `prompt` there is then no text */
  readonly tokens?: number;
  /** seed of the seeded ids; default 0 */
  readonly seed?: number;
}

const DEFAULT_TOKENS = 64;
/** With 16 tokens every positive control of every golden is caught; docs/verification.md has the table. */
const WIRING_TOKENS = 16;

/** What a prompt is for: "quality" measures how well a model predicts, "wiring" shows whether two runs compute the same. */
type PromptPurpose = "quality" | "wiring";

/** Token ids and their origin, so that the same ids can be made again. */
export interface Prompt {
  readonly ids: readonly number[];
  /** number of leading ids that are text; the loss is measured on them */
  readonly textTokens: number;
  readonly text: string | null;
  /** seed of the ids after the text; null where there are no such ids, or where ids were given */
  readonly seed: number | null;
}

/**
 * Token ids that cover a vocabulary evenly. The seed gives the first point and each further point is a golden section
 * further on; so for any number of ids no large part of the token table is left out.
 *
 * @param tokens number of ids
 */
export function seededIds(tokens: number, seed: number, vocab: number): readonly number[] {
  let at = splitMix64(seed)();
  return Array.from({ length: tokens }, () => {
    at = BigInt.asUintN(64, at + GOLDEN);
    return Number((at * BigInt(vocab)) >> 64n);
  });
}

/**
 * The prompt that the options choose. Without options, for quality: bundled text, where the checkpoint has a tokenizer, then
 * 64 seeded ids; for wiring: 16 seeded ids.
 *
 * @throws USAGE for an id outside the vocabulary, a prompt without tokens, or a text without a tokenizer
 */
export async function promptOf(
  options: PromptOptions,
  model: Checkpoint,
  vocab: number,
  purpose: PromptPurpose = "quality",
): Promise<Prompt> {
  const { ids, tokens, prompt, seed = 0 } = options;
  if (ids !== undefined) {
    if (prompt !== undefined) throw new IsologitError("USAGE", "both ids and a text were given");
    return { ids: checkedIds(ids, vocab), textTokens: 0, text: null, seed: null };
  }
  if (tokens !== undefined && (!Number.isSafeInteger(tokens) || tokens < 1))
    throw new IsologitError("USAGE", `\`tokens\` is ${tokens}, expected at least 1`);
  if (prompt !== undefined) {
    const text = checkedIds(await idsOf(prompt, model), vocab);
    const more = tokens === undefined ? [] : seededIds(tokens, seed, vocab);
    const used = tokens === undefined ? null : seed;
    return { ids: [...text, ...more], textTokens: text.length, text: prompt, seed: used };
  }
  const bundled = tokens === undefined && purpose === "quality" ? await bundledIds(model, vocab) : [];
  const seeded = seededIds(tokens ?? (purpose === "quality" ? DEFAULT_TOKENS : WIRING_TOKENS), seed, vocab);
  const text = bundled.length === 0 ? null : TEXTS.join("");
  return { ids: [...bundled, ...seeded], textTokens: bundled.length, text, seed };
}

/** Prompts of given token ids. @throws USAGE as `promptOf`, naming the prompt */
export function promptsOfIds(lists: readonly (readonly number[])[], vocab: number): readonly Prompt[] {
  return lists.map((ids, i) => {
    if (!Array.isArray(ids)) throw new IsologitError("USAGE", `prompt ${i} is not a list of token ids`);
    return { ids: checkedIds(ids, vocab, `prompt ${i}: `), textTokens: 0, text: null, seed: null };
  });
}

/** SHA-256, in hex, of the ids of prompts as 64-bit integers, with -1 between two prompts: no token has this id. */
export function promptsDigest(prompts: readonly (readonly number[])[]): string {
  const ids = prompts.flatMap((one, i) => (i === 0 ? one : [-1, ...one]));
  return sha256(new Uint8Array(new BigInt64Array(ids.map(BigInt)).buffer));
}

function checkedIds(ids: readonly number[], vocab: number, which = ""): readonly number[] {
  const outside = ids.find((id) => !Number.isSafeInteger(id) || id < 0 || id >= vocab);
  if (outside !== undefined)
    throw new IsologitError("USAGE", `${which}token id ${outside} is outside this vocabulary of ${vocab}`);
  if (ids.length === 0) throw new IsologitError("USAGE", `${which}no token id was given`);
  return ids;
}

async function idsOf(text: string, model: Checkpoint): Promise<readonly number[]> {
  const tokenizer = await tokenizerOf(model);
  if (tokenizer !== null) return tokenizer.encode(text);
  const next = { next: "give token ids with `ids`" };
  throw new IsologitError("USAGE", "a text was given, and the checkpoint has no tokenizer.json", {}, next);
}

/**
 * Ids of the bundled text: of each passage the first `share`. Empty where the tokenizer is missing or has other ids.
 *
 * @param share default: equally many of each passage, DEFAULT_TOKENS in total
 */
export async function bundledIds(
  model: Checkpoint,
  vocab: number,
  share = DEFAULT_TOKENS / TEXTS.length,
): Promise<readonly number[]> {
  const tokenizer = await tokenizerOf(model);
  if (tokenizer === null) return [];
  const ids = TEXTS.flatMap((text) => tokenizer.encode(text).slice(0, share));
  return ids.every((id) => id >= 0 && id < vocab) ? ids : [];
}
