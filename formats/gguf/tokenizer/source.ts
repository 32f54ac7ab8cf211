/** What the files of a tokenizer in a Hugging Face folder say, whatever its kind. */
import { IsologitError } from "../../../src/core/errors.ts";
import { isJsonObject, parseJsonObject } from "../../../src/core/json.ts";
import type { WrittenKey } from "../../codec/gguf/encode.ts";

/** llama.cpp's types of tokens, which are those of SentencePiece. */
export const TOKEN = { normal: 1, unknown: 2, control: 3, added: 4, unused: 5, byte: 6 } as const;

/** Side files by path, as bytes. */
export type FileBytes = ReadonlyMap<string, Uint8Array>;

type Values = Readonly<Record<string, unknown>>;

export interface TokenizerSource {
  /** tokenizer.json, and its model */
  readonly tokenizer: Values | null;
  readonly model: Values;
  /** tokenizer.model */
  readonly modelFile: Uint8Array | undefined;
  /** tokenizer_config.json */
  readonly settings: Values;
  /** config.json */
  readonly config: Values;
  readonly added: readonly AddedToken[];
  readonly chatTemplate: string | null;
}

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
}

/** @throws CONFIG_INVALID for a file that is not a JSON object */
export function tokenizerSource(files: FileBytes): TokenizerSource {
  const json = (file: string): Values | null => {
    const bytes = files.get(file);
    return bytes === undefined ? null : parseJsonObject(bytes, { file, nonFinite: true });
  };
  const tokenizer = json("tokenizer.json");
  const settings = json("tokenizer_config.json") ?? {};
  return {
    tokenizer,
    model: isJsonObject(tokenizer?.model) ? tokenizer.model : {},
    modelFile: files.get("tokenizer.model"),
    settings,
    config: json("config.json") ?? {},
    added:
      tokenizer === null
        ? [...addedByText(json("added_tokens.json") ?? {}), ...addedById(settings.added_tokens_decoder)]
        : addedInList(tokenizer.added_tokens),
    chatTemplate: templateIn(files, settings),
  };
}

/** Text of a special token, which is a string or a record with the string. */
export function specialText(settings: Values, name: string): unknown {
  const token = settings[`${name}_token`];
  return isJsonObject(token) ? token.content : token;
}

function addedInList(value: unknown): readonly AddedToken[] {
  return (Array.isArray(value) ? value : []).flatMap((token: unknown) =>
    isJsonObject(token) ? addedToken(token.id, token.content, token.special) : [],
  );
}

const addedByText = (value: Values): readonly AddedToken[] =>
  Object.entries(value).flatMap(([content, id]) => addedToken(id, content, false));

const addedById = (value: unknown): readonly AddedToken[] =>
  Object.entries(isJsonObject(value) ? value : {}).flatMap(([id, token]) =>
    isJsonObject(token) ? addedToken(Number(id), token.content, token.special) : [],
  );

const addedToken = (id: unknown, content: unknown, special: unknown): readonly AddedToken[] =>
  typeof id === "number" && typeof content === "string" ? [{ id, content, special: special === true }] : [];

/** The chat template: a file of its own, or a text in tokenizer_config.json. */
function templateIn(files: FileBytes, settings: Values): string | null {
  const file = files.get("chat_template.jinja");
  if (file !== undefined) return new TextDecoder().decode(file);
  return typeof settings.chat_template === "string" ? settings.chat_template : null;
}

/** What the kind of a tokenizer decides. */
export interface WrittenTokenizer {
  readonly keys: readonly WrittenKey[];
  /** what llama.cpp does otherwise */
  readonly notes: readonly string[];
  /** whether a text gets the token of its beginning where no file says it */
  readonly addsBos: boolean;
  /** id of a special token that is no added token, by its text or as the kind of the tokenizer has it */
  idOf(name: "bos" | "eos" | "unk" | "pad", text: unknown): number | undefined;
}

/** Tokens, types and scores by id, one for each row of the token table. */
export interface TokenTable {
  readonly tokens: readonly string[];
  readonly types: readonly number[];
  readonly scores: readonly number[];
}

export interface TokenEntry {
  readonly id: unknown;
  readonly text: string;
  readonly type: number;
  readonly score: number;
}

/** The converter's scores of ids without a token, and of added ones. No text is merged into them. */
const UNUSED_SCORE = -10_000;
const ADDED_SCORE = -1000;

/**
 * @param entries of one id the last one counts; ids without an entry are unused tokens
 * @throws PLAN_IMPOSSIBLE for an id that the token table does not have
 */
export function tokenTable(entries: Iterable<TokenEntry>, rows: number): TokenTable {
  const tokens = Array.from({ length: rows }, (_, id) => `[PAD${id}]`);
  const types = new Array<number>(rows).fill(TOKEN.unused);
  const scores = new Array<number>(rows).fill(UNUSED_SCORE);
  for (const { id, text, type, score } of entries) {
    if (typeof id !== "number" || !Number.isSafeInteger(id) || id < 0 || id >= rows) {
      const message = `the token ${JSON.stringify(text)} has the number ${String(id)}; the token table has ${rows} rows, and llama.cpp wants as many tokens`;
      throw new IsologitError("PLAN_IMPOSSIBLE", message, { file: "tokenizer.json" });
    }
    [tokens[id], types[id], scores[id]] = [text, type, score];
  }
  return { tokens, types, scores };
}

/** Added tokens: those that look special are control tokens too. */
export const addedEntries = (added: readonly AddedToken[]): readonly TokenEntry[] =>
  added.map(({ id, content, special }) => ({
    ...{ id, text: content, score: ADDED_SCORE },
    type: special || /^<\|.*\|>$/.test(content) ? TOKEN.control : TOKEN.added,
  }));
