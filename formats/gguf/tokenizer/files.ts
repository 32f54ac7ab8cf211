/** The files of a Hugging Face tokenizer, made from the keys of a GGUF: the way back of keys.ts. */
import type { TypedValue } from "../../../src/core/checkpoint.ts";
import { IsologitError } from "../../../src/core/errors.ts";
import { readRange, type Store } from "../../../src/core/io.ts";
import { byteLevelParts } from "./byte-level.ts";
import { sentencePieceParts } from "./sentencepiece.ts";
import { TOKEN } from "./source.ts";

const NAMES = { bos: "bos", eos: "eos", unk: "unknown", pad: "padding" } as const;
type Special = Partial<Record<keyof typeof NAMES, string>>;
/** What llama.cpp takes of its model `llama` where a key is missing. */
const DEFAULTS = { bos: 1, eos: 2, unk: 0 } as const;

type Entries = ReadonlyMap<string, TypedValue>;

/**
 * The files by path; none for a tokenizer that is neither byte-level BPE nor SentencePiece's BPE, or whose division of texts is
 * not known here.
 *
 * @param metadata keys of the file; long lists are read from it
 * @throws HEADER_INVALID for a special token that does not exist; LIMIT_EXCEEDED for tokens of absurd lengths
 */
export async function tokenizerFiles(
  metadata: readonly TypedValue[],
  store: Store,
): Promise<ReadonlyMap<string, Uint8Array>> {
  const entries: Entries = new Map(
    metadata.map((entry) => [entry.key.replace(/^tokenizer\.ggml\./, ""), entry]),
  );
  const files = new Map<string, Uint8Array>();
  const put = (path: string, text: string) => files.set(path, new TextEncoder().encode(text));
  const template = entries.get("tokenizer.chat_template");
  if (template?.type === "string") put("chat_template.jinja", await textAt(template, store));
  const tokens = await stringsAt(entries.get("tokens"), store);
  const types = await numbersAt(entries.get("token_type"), "i32[]", tokens.length, store);
  const parts = await partsOf(entries, { tokens, types }, store);
  if (parts === null) return files;
  const isSentencePiece = entries.get("model")?.value === "llama";
  const flagAt = (key: string, byDefault: boolean) => entries.get(key)?.value ?? byDefault;
  const special = specialTokens(entries, tokens, isSentencePiece ? DEFAULTS : {});
  const ids = tokens.map((content, id) => ({ content, id, type: types[id] }));
  const isAdded: readonly unknown[] = [TOKEN.control, TOKEN.added, TOKEN.unknown];
  const addedTokens = ids
    .filter(({ type }) => isAdded.includes(type))
    .map(({ id, content, type }) => ({
      ...{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false },
      special: type !== TOKEN.added,
    }));
  const { normalizer, pre_tokenizer, decoder, model, merges } = parts;
  const tokenizer = {
    ...{ version: "1.0", truncation: null, padding: null, added_tokens: addedTokens },
    ...{ normalizer, pre_tokenizer },
    post_processor: templateOf(
      flagAt("add_bos_token", isSentencePiece) === true ? special.bos : undefined,
      flagAt("add_eos_token", false) === true ? special.eos : undefined,
      tokens,
    ),
    decoder,
    model: {
      ...{ type: "BPE", dropout: null, unk_token: special.unk ?? null },
      ...{ continuing_subword_prefix: null, end_of_word_suffix: null, ...model },
      vocab: Object.fromEntries(
        ids.filter(({ type }) => type !== TOKEN.unused).map(({ content, id }) => [content, id]),
      ),
      merges,
    },
  };
  put("tokenizer.json", JSON.stringify(tokenizer));
  const config = {
    added_tokens_decoder: Object.fromEntries(addedTokens.map(({ id, ...token }) => [id, token])),
    ...Object.fromEntries(Object.entries(special).map(([name, token]) => [`${name}_token`, token])),
    clean_up_tokenization_spaces: false,
    tokenizer_class: "PreTrainedTokenizerFast",
  };
  put("tokenizer_config.json", `${JSON.stringify(config, null, 2)}\n`);
  return files;
}

/** The parts of a tokenizer.json by the kind of its model; null for a model that is not known here, or lacks a list. */
async function partsOf(
  entries: Entries,
  { tokens, types }: { readonly tokens: readonly string[]; readonly types: readonly number[] },
  store: Store,
) {
  const model = entries.get("model")?.value;
  if (tokens.length === 0) return null;
  if (model === "gpt2") {
    const merges = entries.get("merges");
    return merges === undefined
      ? null
      : byteLevelParts(entries.get("pre")?.value, await stringsAt(merges, store));
  }
  if (model !== "llama") return null;
  const scores = await numbersAt(entries.get("scores"), "f32[]", tokens.length, store);
  if (scores.length === 0 || types.length === 0) return null;
  return sentencePieceParts({ tokens, types, scores }, entries.get("add_space_prefix")?.value !== false);
}

/** @throws HEADER_INVALID for an id that no token has */
function specialTokens(
  entries: Entries,
  tokens: readonly string[],
  defaults: Partial<Record<string, number>>,
): Special {
  return Object.fromEntries(
    Object.entries(NAMES).flatMap(([name, key]) => {
      const stated = entries.get(`${key}_token_id`)?.value;
      if (typeof stated !== "number") {
        const token = tokens[defaults[name] ?? -1];
        return token === undefined ? [] : [[name, token]];
      }
      if (tokens[stated] !== undefined) return [[name, tokens[stated]]];
      const message = `tokenizer.ggml.${key}_token_id is ${stated}; there are ${tokens.length} tokens`;
      throw new IsologitError("HEADER_INVALID", message);
    }),
  );
}

/** Puts the token of the beginning before each text, and that of the end after it; null without both. */
function templateOf(
  begin: string | undefined,
  end: string | undefined,
  tokens: readonly string[],
): object | null {
  const outer = [begin, end].filter((token) => token !== undefined);
  if (outer.length === 0) return null;
  const special = (token: string | undefined) =>
    token === undefined ? [] : [{ SpecialToken: { id: token, type_id: 0 } }];
  const text = (id: "A" | "B") => ({ Sequence: { id, type_id: 0 } });
  return {
    type: "TemplateProcessing",
    single: [...special(begin), text("A"), ...special(end)],
    pair: [...special(begin), text("A"), text("B"), ...special(end)],
    special_tokens: Object.fromEntries(
      outer.map((token) => [token, { id: token, ids: [tokens.indexOf(token)], tokens: [token] }]),
    ),
  };
}

async function bytesAt({ span }: TypedValue, store: Store): Promise<Uint8Array> {
  await using source = await store.open(span.file);
  return await readRange(source, span.offset, span.size);
}

const textAt = async (entry: TypedValue, store: Store): Promise<string> =>
  new TextDecoder().decode(await bytesAt(entry, store));

/** The texts of a list; none without it. The reader of headers has checked their lengths. */
async function stringsAt(entry: TypedValue | undefined, store: Store): Promise<readonly string[]> {
  if (entry?.type !== "string[]") return [];
  const bytes = Buffer.from(await bytesAt(entry, store));
  const texts: string[] = [];
  for (let at = 0; at < bytes.byteLength; ) {
    const size = Number(bytes.readBigUInt64LE(at));
    texts.push(bytes.toString("utf8", at + 8, at + 8 + size));
    at += 8 + size;
  }
  return texts;
}

/** A list with one number a token; empty if there is none. */
async function numbersAt(
  entry: TypedValue | undefined,
  type: "i32[]" | "f32[]",
  count: number,
  store: Store,
): Promise<readonly number[]> {
  if (entry?.type !== type || entry.count !== count) return [];
  const bytes = Buffer.from(await bytesAt(entry, store));
  return Array.from({ length: count }, (_, i) =>
    type === "i32[]" ? bytes.readInt32LE(4 * i) : bytes.readFloatLE(4 * i),
  );
}
