/** The files of a Hugging Face tokenizer, made from the keys of a GGUF: the way back of tokenizer-keys.ts. */
import type { TypedValue } from "../../src/core/checkpoint.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { readRange, type Store } from "../../src/core/io.ts";
import { PATTERNS, TOKEN } from "./tokenizer-keys.ts";

/** llama.cpp divides texts for these names with the pattern of another name. */
const SAME_PATTERN: Readonly<Record<string, string>> = { pixtral: "llama-bpe" };
/** llama.cpp takes a whole token before it merges parts, for these names. */
const TAKES_WHOLE_TOKENS: readonly string[] = ["llama-bpe", "tekken", "pixtral"];

const NAMES = { bos: "bos", eos: "eos", unk: "unknown", pad: "padding" } as const;

/**
 * The files by path; none for a tokenizer that is not byte-level BPE, or whose division of texts is not known here.
 *
 * @param metadata keys of the file; long lists are read from it
 * @throws HEADER_INVALID for a special token that does not exist
 */
export async function tokenizerFiles(
  metadata: readonly TypedValue[],
  store: Store,
): Promise<ReadonlyMap<string, Uint8Array>> {
  const entries = new Map(metadata.map((entry) => [entry.key.replace(/^tokenizer\.ggml\./, ""), entry]));
  const files = new Map<string, Uint8Array>();
  const put = (path: string, text: string) => files.set(path, new TextEncoder().encode(text));
  const template = entries.get("tokenizer.chat_template");
  if (template?.type === "string") put("chat_template.jinja", await textAt(template, store));
  const pre = entries.get("pre")?.value;
  const divides = typeof pre === "string" ? preTokenizerOf(pre) : null;
  const [tokenList, mergeList] = [entries.get("tokens"), entries.get("merges")];
  if (entries.get("model")?.value !== "gpt2" || divides === null || !tokenList || !mergeList) return files;
  const tokens = await stringsAt(tokenList, store);
  const types = await numbersAt(entries.get("token_type"), tokens.length, store);
  const merges = await stringsAt(mergeList, store);
  const special = Object.fromEntries(
    Object.entries(NAMES).flatMap(([name, key]) => {
      const id = entries.get(`${key}_token_id`)?.value;
      if (typeof id !== "number") return [];
      if (tokens[id] !== undefined) return [[name, tokens[id]]];
      throw new IsologitError(
        "HEADER_INVALID",
        `tokenizer.ggml.${key}_token_id is ${id}; there are ${tokens.length} tokens`,
      );
    }),
  ) as Partial<Record<keyof typeof NAMES, string>>; // names of the table
  const ids = tokens.map((content, id) => ({ content, id, type: types[id] ?? TOKEN.normal }));
  const added = ids.filter(({ type }) => type === TOKEN.control || type === TOKEN.added);
  const addedTokens = added.map(({ id, content, type }) => ({
    ...{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false },
    special: type === TOKEN.control,
  }));
  const tokenizer = {
    ...{ version: "1.0", truncation: null, padding: null, added_tokens: addedTokens, normalizer: null },
    pre_tokenizer: divides,
    post_processor: beginsWith(
      entries.get("add_bos_token")?.value === true ? special.bos : undefined,
      tokens,
    ),
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      ...{ type: "BPE", dropout: null, unk_token: special.unk ?? null },
      ...{ continuing_subword_prefix: null, end_of_word_suffix: null, fuse_unk: false, byte_fallback: false },
      ignore_merges: TAKES_WHOLE_TOKENS.includes(String(pre)),
      vocab: Object.fromEntries(
        ids.filter(({ type }) => type !== TOKEN.unused).map(({ content, id }) => [content, id]),
      ),
      merges: merges.map(pairOf),
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

/** How texts are divided before merges; null for a name that is not known here. */
function preTokenizerOf(pre: string): object | null {
  const bytes = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true };
  if (pre === "gpt-2") return { ...bytes, use_regex: true };
  const name = SAME_PATTERN[pre] ?? pre;
  const pattern = Object.entries(PATTERNS).find(([, known]) => known === name)?.[0];
  if (pattern === undefined) return null;
  const split = { type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false };
  return { type: "Sequence", pretokenizers: [split, { ...bytes, use_regex: false }] };
}

/** Puts the token of the beginning before each text. */
function beginsWith(token: string | undefined, tokens: readonly string[]): object | null {
  if (token === undefined) return null;
  const first = { SpecialToken: { id: token, type_id: 0 } };
  const text = (id: "A" | "B") => ({ Sequence: { id, type_id: 0 } });
  return {
    type: "TemplateProcessing",
    single: [first, text("A")],
    pair: [first, text("A"), text("B")],
    special_tokens: { [token]: { id: token, ids: [tokens.indexOf(token)], tokens: [token] } },
  };
}

/** The two parts of a merge. A part may begin with a space of its own, which is written as its byte-level character. */
function pairOf(merge: string): readonly [string, string] {
  const at = merge.indexOf(" ", 1);
  return [merge.slice(0, at), merge.slice(at + 1)];
}

async function bytesAt({ span }: TypedValue, store: Store): Promise<Uint8Array> {
  await using source = await store.open(span.file);
  return await readRange(source, span.offset, span.size);
}

const textAt = async (entry: TypedValue, store: Store): Promise<string> =>
  new TextDecoder().decode(await bytesAt(entry, store));

/** The texts of a list. The reader of headers has checked their lengths. */
async function stringsAt(entry: TypedValue, store: Store): Promise<readonly string[]> {
  const bytes = Buffer.from(await bytesAt(entry, store));
  const texts: string[] = [];
  for (let at = 0; at < bytes.byteLength; ) {
    const size = Number(bytes.readBigUInt64LE(at));
    texts.push(bytes.toString("utf8", at + 8, at + 8 + size));
    at += 8 + size;
  }
  return texts;
}

/** A list of i32 with one number a token; empty if there is none. */
async function numbersAt(
  entry: TypedValue | undefined,
  count: number,
  store: Store,
): Promise<readonly number[]> {
  if (entry?.type !== "i32[]" || entry.count !== count) return [];
  const bytes = Buffer.from(await bytesAt(entry, store));
  return Array.from({ length: count }, (_, i) => bytes.readInt32LE(4 * i));
}
