/** Ids of the special tokens that engines need to generate text, from the files of a tokenizer. */
import { isJsonObject, type Json, parseJsonObject } from "../core/json.ts";

export const SPECIAL_TOKENS = ["bos", "eos", "pad"] as const;

/** The ids that are known. */
export type SpecialIds = Readonly<Partial<Record<(typeof SPECIAL_TOKENS)[number], number>>>;

/**
 * Reads which tokens begin, end and pad a text, as Transformers does: their texts are in `tokenizer_config.json` or
 * `special_tokens_map.json`, and their ids beside them or in `tokenizer.json`.
 *
 * @param read the bytes of a file; null where there is none
 * @throws CONFIG_INVALID for a file that is not a JSON object
 */
export async function specialIds(read: (path: string) => Promise<Uint8Array | null>): Promise<SpecialIds> {
  const object = async (path: string) => {
    const bytes = await read(path);
    return bytes === null ? {} : parseJsonObject(bytes, { file: path });
  };
  const config = await object("tokenizer_config.json");
  const map = await object("special_tokens_map.json");
  const texts = SPECIAL_TOKENS.map((name) => textOf(config[`${name}_token`]) ?? textOf(map[`${name}_token`]));
  if (texts.every((text) => text === undefined)) return {};
  const idOf = idsByText(config, await object("tokenizer.json"));
  const found = SPECIAL_TOKENS.flatMap((name, i) => {
    const id = texts[i] === undefined ? undefined : idOf(texts[i]);
    return id === undefined ? [] : [[name, id]];
  });
  return Object.fromEntries(found);
}

/** Text of a special token, which is a string or a record with the string. */
export function textOf(token: unknown): string | undefined {
  const text = typeof token === "object" && token !== null && "content" in token ? token.content : token;
  return typeof text === "string" ? text : undefined;
}

function idsByText(
  config: Readonly<Record<string, Json>>,
  tokenizer: Readonly<Record<string, Json>>,
): (text: string) => number | undefined {
  const ids = new Map<string, number>();
  const add = (text: unknown, id: unknown) => {
    if (typeof text === "string" && Number.isSafeInteger(id) && !ids.has(text)) ids.set(text, id as number);
  };
  if (isJsonObject(config.added_tokens_decoder))
    for (const [id, token] of Object.entries(config.added_tokens_decoder)) add(textOf(token), Number(id));
  const { added_tokens: added, model } = tokenizer;
  if (Array.isArray(added)) for (const token of added) if (isJsonObject(token)) add(token.content, token.id);
  const vocab = isJsonObject(model) ? model.vocab : undefined;
  return (text) => {
    if (ids.has(text)) return ids.get(text);
    if (Array.isArray(vocab)) {
      const at = vocab.findIndex((entry) => Array.isArray(entry) && entry[0] === text); // Unigram: [text, score]
      return at < 0 ? undefined : at;
    }
    const id = isJsonObject(vocab) && Object.hasOwn(vocab, text) ? vocab[text] : undefined;
    return typeof id === "number" ? id : undefined;
  };
}
