/** Byte-level BPE, llama.cpp's model `gpt2`: its keys from a tokenizer.json, and the way back. */
import { isJsonObject } from "../../../src/core/json.ts";
import type { WrittenKey } from "../../codec/gguf/encode.ts";
import { type Merge, mergeIn } from "./merges.ts";
import { addedEntries, TOKEN, type TokenizerSource, tokenTable, type WrittenTokenizer } from "./source.ts";

/** Patterns by which tokenizers divide a text, and llama.cpp's names of them. */
const PATTERNS: Readonly<Record<string, string>> = {
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+":
    "llama-bpe",
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+":
    "qwen2",
  "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+":
    "tekken",
};
/** llama.cpp divides texts for these names with the pattern of another name. */
const SAME_PATTERN: Readonly<Record<string, string>> = { pixtral: "llama-bpe" };
/** llama.cpp takes a whole token before it merges parts, for these names. */
const TAKES_WHOLE_TOKENS: readonly string[] = ["llama-bpe", "tekken", "pixtral"];

/** @param rows of the token table */
export function byteLevelKeys({ tokenizer, model, added }: TokenizerSource, rows: number): WrittenTokenizer {
  const pre = preTokenizerName(tokenizer?.pre_tokenizer);
  const vocab = Object.entries(isJsonObject(model.vocab) ? model.vocab : {});
  const plain = vocab.map(([text, id]) => ({ id, text, type: TOKEN.normal, score: 0 }));
  const { tokens, types } = tokenTable([...plain, ...addedEntries(added)], rows);
  const merges = mergesIn(model.merges);
  const keys: readonly WrittenKey[] = [
    { key: "tokenizer.ggml.model", type: "string", value: "gpt2" },
    ...(pre === null ? [] : [{ key: "tokenizer.ggml.pre", type: "string", value: pre } as const]),
    { key: "tokenizer.ggml.tokens", type: "string[]", value: tokens },
    { key: "tokenizer.ggml.token_type", type: "i32[]", value: types },
    // a vocabulary without merges is refused; this one never applies
    { key: "tokenizer.ggml.merges", type: "string[]", value: merges.length > 0 ? merges : ["Ġ Ġ"] },
  ];
  const note =
    "llama.cpp has no name for the way in which this tokenizer divides a text: it uses its default, and some texts get other tokens";
  return { keys, notes: pre === null ? [note] : [], addsBos: false, idOf: () => undefined };
}

/** llama.cpp's name for a pre-tokenizer; null if it has none. */
function preTokenizerName(value: unknown): string | null {
  if (!isJsonObject(value)) return null;
  const steps =
    value.type === "Sequence" && Array.isArray(value.pretokenizers) ? value.pretokenizers : [value];
  const [split, bytes = split] = steps as readonly unknown[];
  if (!isJsonObject(split) || !isJsonObject(bytes) || bytes.type !== "ByteLevel" || steps.length > 2)
    return null;
  if (steps.length === 1)
    return bytes.use_regex !== false && bytes.add_prefix_space !== true ? "gpt-2" : null;
  const pattern = isJsonObject(split.pattern) ? split.pattern.Regex : undefined;
  return split.type === "Split" && typeof pattern === "string" && Object.hasOwn(PATTERNS, pattern)
    ? PATTERNS[pattern]!
    : null;
}

/** Merges as one text each; a space inside a part is written as the byte-level character of a space. */
function mergesIn(value: unknown): readonly string[] {
  const pairs: readonly unknown[] = Array.isArray(value) ? value : [];
  return pairs.map((pair) =>
    Array.isArray(pair) ? pair.map((part) => String(part).replaceAll(" ", "Ġ")).join(" ") : String(pair),
  );
}

/**
 * The parts of a tokenizer.json that depend on its kind; null for a name whose division of texts is not known here.
 *
 * @param pre value of `tokenizer.ggml.pre`
 */
export function byteLevelParts(pre: unknown, merges: readonly string[]) {
  const divides = typeof pre === "string" ? preTokenizerNamed(pre) : null;
  if (divides === null) return null;
  return {
    normalizer: null,
    pre_tokenizer: divides,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: { fuse_unk: false, byte_fallback: false, ignore_merges: TAKES_WHOLE_TOKENS.includes(String(pre)) },
    merges: merges.map((merge): Merge => mergeIn(merge)),
  };
}

/** How texts are divided before merges; null for a name that is not known here. */
function preTokenizerNamed(pre: string): object | null {
  const bytes = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true };
  if (pre === "gpt-2") return { ...bytes, use_regex: true };
  const name = SAME_PATTERN[pre] ?? pre;
  const pattern = Object.entries(PATTERNS).find(([, known]) => known === name)?.[0];
  if (pattern === undefined) return null;
  const split = { type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false };
  return { type: "Sequence", pretokenizers: [split, { ...bytes, use_regex: false }] };
}
