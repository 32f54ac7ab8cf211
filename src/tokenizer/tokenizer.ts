/** Reads the tokenizer of a checkpoint from its `tokenizer.json`. */
import { Tokenizer as Library } from "@huggingface/tokenizers";
import type { Checkpoint } from "../core/checkpoint.ts";
import { IsologitError } from "../core/errors.ts";
import { readRange } from "../core/io.ts";
import { parseJsonObject } from "../core/json.ts";

export interface Tokenizer {
  /** ids of a text, with the tokens that the tokenizer adds to every text (usually a first token) */
  encode(text: string): readonly number[];
  /** ids of a text that contains all its special tokens */
  encodeBare(text: string): readonly number[];
  decode(ids: readonly number[]): string;
}

const MODEL = "tokenizer.json";
export const CONFIG = "tokenizer_config.json";
/** Limit of a tokenizer file; the largest known, with 256,000 tokens and their merges, has 34 MB. */
const MAX_TOKENIZER_BYTES = 256 * 1024 * 1024;

/**
 * The tokenizer beside the weights of a checkpoint; null without a tokenizer.
 *
 * @throws CONFIG_INVALID: the tokenizer cannot be read; LIMIT_EXCEEDED: the file is too large
 */
export async function tokenizerOf(checkpoint: Checkpoint): Promise<Tokenizer | null> {
  const model = await jsonBeside(checkpoint, MODEL);
  if (model === null) return null;
  const config = (await jsonBeside(checkpoint, CONFIG)) ?? {};
  let library: Library;
  try {
    library = new Library(model, config);
  } catch (cause) {
    const message = `the form of this tokenizer is not known: ${cause instanceof Error ? cause.message : cause}`;
    throw new IsologitError("CONFIG_INVALID", message, { file: MODEL }, { cause });
  }
  return {
    encode: (text) => library.encode(text).ids,
    encodeBare: (text) => library.encode(text, { add_special_tokens: false }).ids,
    decode: (ids) => (ids.length === 0 ? "" : library.decode([...ids])),
  };
}

/** A JSON object in a side file of a checkpoint; null without that file. @throws CONFIG_INVALID, LIMIT_EXCEEDED */
export async function jsonBeside(checkpoint: Checkpoint, path: string) {
  const bytes = await bytesBeside(checkpoint, path);
  return bytes === null ? null : parseJsonObject(bytes, { file: path });
}

/** A side file of a checkpoint; null without that file. @throws LIMIT_EXCEEDED */
export async function bytesBeside({ sidecars, store }: Checkpoint, path: string): Promise<Uint8Array | null> {
  const found = sidecars.find((sidecar) => sidecar.path === path);
  if (found === undefined) return null;
  const { file, offset, size } = found.span;
  if (size > MAX_TOKENIZER_BYTES) {
    const message = `${size} bytes, expected at most ${MAX_TOKENIZER_BYTES}`;
    throw new IsologitError("LIMIT_EXCEEDED", message, { file: path });
  }
  await using source = await store.open(file);
  return await readRange(source, offset, size);
}
