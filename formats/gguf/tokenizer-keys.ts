/**
 * The keys of a tokenizer, from the files of a Hugging Face folder. llama.cpp has byte-level BPE as the model `gpt2`; other
 * tokenizers become `none`: a model then takes numbers of tokens alone.
 */
import { IsologitError } from "../../src/core/errors.ts";
import { isJsonObject, parseJsonObject } from "../../src/core/json.ts";
import type { WrittenKey } from "../codec/gguf/encode.ts";

/** llama.cpp's types of tokens. */
export const TOKEN = { normal: 1, control: 3, added: 4, unused: 5 } as const;

/** Side files by path, as bytes. */
export type FileBytes = ReadonlyMap<string, Uint8Array>;

interface TokenizerKeys {
  readonly keys: readonly WrittenKey[];
  /** why the file has no tokenizer, or a poorer one; empty if nothing is lost */
  readonly notes: readonly string[];
}

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
}

/**
 * @param files side files of the model
 * @param rows  of the token table: llama.cpp wants as many tokens
 * @throws PLAN_IMPOSSIBLE if the tokenizer has more tokens than the table has rows
 */
export function tokenizerKeys(files: FileBytes, rows: number): TokenizerKeys {
  const tokenizer = jsonIn(files, "tokenizer.json");
  if (tokenizer === null) return withoutTokenizer("the model has no tokenizer.json");
  const model = isJsonObject(tokenizer.model) ? tokenizer.model : {};
  if (model.type !== "BPE" || model.byte_fallback === true || !isJsonObject(model.vocab))
    return withoutTokenizer(
      "its tokenizer is not byte-level BPE, the one kind that is written to GGUF so far",
    );
  const pre = preTokenizerOf(tokenizer.pre_tokenizer);
  const added = addedTokens(tokenizer.added_tokens);
  const config = jsonIn(files, "tokenizer_config.json") ?? {};
  const { tokens, types } = tokenList(model.vocab, added, rows);
  const merges = mergesOf(model.merges);
  const template = templateIn(files, config);
  return {
    keys: [
      { key: "tokenizer.ggml.model", type: "string", value: "gpt2" },
      ...(pre === null ? [] : [{ key: "tokenizer.ggml.pre", type: "string", value: pre } as const]),
      { key: "tokenizer.ggml.tokens", type: "string[]", value: tokens },
      { key: "tokenizer.ggml.token_type", type: "i32[]", value: types },
      // a vocabulary without merges is refused; this one never applies
      { key: "tokenizer.ggml.merges", type: "string[]", value: merges.length > 0 ? merges : ["Ġ Ġ"] },
      ...specialTokens(config, jsonIn(files, "config.json") ?? {}, added),
      {
        ...{ key: "tokenizer.ggml.add_bos_token", type: "bool" },
        value: beginsWithBos(tokenizer.post_processor, config),
      },
      ...(template === null
        ? []
        : [{ key: "tokenizer.chat_template", type: "string", value: template } as const]),
    ],
    notes:
      pre === null
        ? [
            "llama.cpp has no name for the way in which this tokenizer divides a text: it uses its default, and some texts get other tokens",
          ]
        : [],
  };
}

function withoutTokenizer(reason: string): TokenizerKeys {
  return {
    keys: [{ key: "tokenizer.ggml.model", type: "string", value: "none" }],
    notes: [`${reason}: llama.cpp runs the file with numbers of tokens, not with texts`],
  };
}

function jsonIn(files: FileBytes, file: string): Readonly<Record<string, unknown>> | null {
  const bytes = files.get(file);
  return bytes === undefined ? null : parseJsonObject(bytes, { file, nonFinite: true });
}

/** Patterns by which tokenizers divide a text, and llama.cpp's names of them. */
export const PATTERNS: Readonly<Record<string, string>> = {
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+":
    "llama-bpe",
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+":
    "qwen2",
  "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+":
    "tekken",
};

/** llama.cpp's name for a pre-tokenizer; null if it has none. */
function preTokenizerOf(value: unknown): string | null {
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

function addedTokens(value: unknown): readonly AddedToken[] {
  return (Array.isArray(value) ? value : []).flatMap((token: unknown): AddedToken[] =>
    isJsonObject(token) && typeof token.id === "number" && typeof token.content === "string"
      ? [{ id: token.id, content: token.content, special: token.special === true }]
      : [],
  );
}

/** All tokens by id, and their types. Ids without a token are unused ones. */
function tokenList(vocab: Readonly<Record<string, unknown>>, added: readonly AddedToken[], rows: number) {
  const tokens = new Array<string | undefined>(rows);
  const types = new Array<number>(rows).fill(TOKEN.unused);
  const set = (id: unknown, token: string, type: number) => {
    if (typeof id !== "number" || !Number.isSafeInteger(id) || id < 0 || id >= rows) {
      const message = `the token ${JSON.stringify(token)} has the number ${String(id)}; the token table has ${rows} rows, and llama.cpp wants as many tokens`;
      throw new IsologitError("PLAN_IMPOSSIBLE", message, { file: "tokenizer.json" });
    }
    tokens[id] = token;
    types[id] = type;
  };
  for (const [token, id] of Object.entries(vocab)) set(id, token, TOKEN.normal);
  for (const { id, content, special } of added)
    set(id, content, special || /^<\|.*\|>$/.test(content) ? TOKEN.control : TOKEN.added);
  return { tokens: Array.from(tokens, (token, id) => token ?? `[PAD${id}]`), types };
}

/** Merges as one text each; a space inside a part is written as the byte-level character of a space. */
function mergesOf(value: unknown): readonly string[] {
  const pairs: readonly unknown[] = Array.isArray(value) ? value : [];
  return pairs.map((pair) =>
    Array.isArray(pair) ? pair.map((part) => String(part).replaceAll(" ", "Ġ")).join(" ") : String(pair),
  );
}

/** Names of special tokens in configs, and those of their keys. */
const SPECIAL = { bos: "bos", eos: "eos", unk: "unknown", pad: "padding" } as const;

function specialTokens(
  tokenizer: Readonly<Record<string, unknown>>,
  model: Readonly<Record<string, unknown>>,
  added: readonly AddedToken[],
): readonly WrittenKey[] {
  return Object.entries(SPECIAL).flatMap(([name, key]): WrittenKey[] => {
    const token = tokenizer[`${name}_token`];
    const text = isJsonObject(token) ? token.content : token;
    const listed = model[`${name}_token_id`];
    const id =
      added.find(({ content }) => content === text)?.id ?? (typeof listed === "number" ? listed : null);
    return id === null ? [] : [{ key: `tokenizer.ggml.${key}_token_id`, type: "u32", value: id }];
  });
}

/** Whether a text gets the token of its beginning. */
function beginsWithBos(processor: unknown, config: Readonly<Record<string, unknown>>): boolean {
  if (typeof config.add_bos_token === "boolean") return config.add_bos_token;
  const bos = isJsonObject(config.bos_token) ? config.bos_token.content : config.bos_token;
  const steps: readonly unknown[] =
    isJsonObject(processor) && Array.isArray(processor.processors) ? processor.processors : [processor];
  return steps.some((step) => {
    const first: unknown = isJsonObject(step) && Array.isArray(step.single) ? step.single[0] : undefined;
    return isJsonObject(first) && isJsonObject(first.SpecialToken) && first.SpecialToken.id === bos;
  });
}

/** The chat template: a file of its own, or a text in tokenizer_config.json. */
function templateIn(files: FileBytes, config: Readonly<Record<string, unknown>>): string | null {
  const file = files.get("chat_template.jinja");
  if (file !== undefined) return new TextDecoder().decode(file);
  return typeof config.chat_template === "string" ? config.chat_template : null;
}
