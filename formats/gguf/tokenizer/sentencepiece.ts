/**
 * SentencePiece's BPE with tokens of single bytes, llama.cpp's model `llama`, as Llama 2 and Mistral have it: its keys from a
 * tokenizer.json, a tokenizer.model or both, and the way back.
 */
import { isJsonObject } from "../../../src/core/json.ts";
import type { WrittenKey } from "../../codec/gguf/encode.ts";
import { areAlike, type Merge, mergeIn, mergesOf, scoresOf } from "./merges.ts";
import {
  isSentencePieceModel,
  readSentencePieceModel,
  type SentencePiece,
  type SentencePieceModel,
} from "./model-file.ts";
import {
  addedEntries,
  TOKEN,
  type TokenEntry,
  type TokenizerSource,
  type TokenTable,
  tokenTable,
  type WrittenTokenizer,
} from "./source.ts";

/** Stands for a space. */
const SPACE = "▁";
const FILE = "tokenizer.model";

/** What llama.cpp does otherwise than the tokenizer, so that some texts get other tokens. */
const NOTES = {
  merges: "llama.cpp merges whatever gives a known token; this tokenizer merges the pairs of its list alone",
  divides: "llama.cpp does not normalise or divide a text before it merges characters; this tokenizer does",
  prefix:
    "llama.cpp puts a space before each text and after each special token; this tokenizer does so at fewer places",
  file: "tokenizer.model has other tokens than tokenizer.json, which was taken, as Transformers does",
} as const;

type Note = keyof typeof NOTES;

/** A vocabulary from one of the files. */
interface Vocabulary {
  readonly pieces: readonly (SentencePiece & { readonly id: number })[];
  readonly addsPrefix: boolean;
  /** ids of special tokens where no other file says them */
  readonly ids: Partial<SentencePieceModel["ids"]>;
  readonly notes: readonly Note[];
}

/**
 * @param rows of the token table
 * @returns keys, or the reason why llama.cpp cannot use this tokenizer
 * @throws PLAN_IMPOSSIBLE for more tokens than rows; codes of exit status 3 for a damaged tokenizer.model
 */
export function sentencePieceKeys(
  source: TokenizerSource,
  rows: number,
): WrittenTokenizer | { readonly reason: string } {
  const { tokenizer, modelFile, settings, added } = source;
  const isModel = modelFile !== undefined && isSentencePieceModel(modelFile);
  const file = isModel ? readSentencePieceModel(modelFile, FILE) : null;
  const vocabulary = tokenizer === null ? fromFile(file) : fromJson(source, file);
  if (typeof vocabulary === "string") return { reason: vocabulary };
  const table = tokenTable([...vocabulary.pieces, ...addedEntries(added)].map(withSpaces), rows);
  if (!hasAllBytes(table)) return { reason: "its tokenizer lacks tokens of single bytes" };
  const addsPrefix =
    typeof settings.add_prefix_space === "boolean" ? settings.add_prefix_space : vocabulary.addsPrefix;
  const keys: readonly WrittenKey[] = [
    { key: "tokenizer.ggml.model", type: "string", value: "llama" },
    { key: "tokenizer.ggml.pre", type: "string", value: "default" },
    { key: "tokenizer.ggml.tokens", type: "string[]", value: table.tokens },
    { key: "tokenizer.ggml.scores", type: "f32[]", value: table.scores },
    { key: "tokenizer.ggml.token_type", type: "i32[]", value: table.types },
    { key: "tokenizer.ggml.add_space_prefix", type: "bool", value: addsPrefix },
  ];
  const notes = vocabulary.notes.map((note) => `${NOTES[note]}: some texts get other tokens`);
  const idOf: WrittenTokenizer["idOf"] = (name, text) => {
    const id = table.tokens.indexOf(String(text));
    return id < 0 ? vocabulary.ids[name] : id;
  };
  return { keys, notes, addsBos: true, idOf };
}

/** llama.cpp looks for added tokens in the text as it is. */
const withSpaces = (entry: TokenEntry): TokenEntry =>
  entry.type === TOKEN.added ? { ...entry, text: entry.text.replaceAll(SPACE, " ") } : entry;

/** The text of the token of a byte. */
const byteText = (byte: number): string => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;

const isByteText = (text: string): boolean => /^<0x[0-9A-F]{2}>$/.test(text);

/** Without these, llama.cpp ends with an exception at the first unknown character. */
function hasAllBytes({ tokens, types }: TokenTable): boolean {
  const bytes = new Set(tokens.filter((_, id) => types[id] === TOKEN.byte));
  return Array.from({ length: 256 }, (_, byte) => byteText(byte)).every((text) => bytes.has(text));
}

function fromFile(file: SentencePieceModel | null): Vocabulary | string {
  if (file === null) return "the model has no tokenizer.json, and no tokenizer.model of SentencePiece";
  if (file.kind !== "bpe") return `its tokenizer is SentencePiece's ${file.kind}, and not its BPE`;
  const pieces = file.pieces.map((piece, id) => ({ id, ...piece }));
  const { addsPrefix, ids, normalizes } = file;
  return { pieces, addsPrefix, ids, notes: normalizes ? ["divides"] : [] };
}

/** @param file has the scores, which tokenizer.json has not */
function fromJson(source: TokenizerSource, file: SentencePieceModel | null): Vocabulary | string {
  const { tokenizer, model, added } = source;
  if (model.type !== "BPE" || !isJsonObject(model.vocab))
    return `its tokenizer is ${String(model.type)}, and not byte-level BPE or SentencePiece's BPE`;
  const ids = new Map(
    Object.entries(model.vocab).filter((entry): entry is [string, number] => typeof entry[1] === "number"),
  );
  const addedIds = new Set(added.map(({ id }) => id));
  const isFile =
    file?.kind === "bpe" &&
    file.pieces.every(({ text }, id) => ids.get(text) === id || addedIds.has(id)) &&
    [...ids.values()].every((id) => id < file.pieces.length || addedIds.has(id));
  const typeOf = (text: string): number => {
    if (text === model.unk_token) return TOKEN.unknown;
    return isByteText(text) ? TOKEN.byte : TOKEN.normal;
  };
  const isPlain = (text: string) =>
    ids.has(text) && typeOf(text) === TOKEN.normal && !addedIds.has(ids.get(text)!);
  const listed: readonly unknown[] = Array.isArray(model.merges) ? model.merges : [];
  const merges = listed.map(pairIn).filter((pair) => [...pair, pair.join("")].every(isPlain));
  const scoreOf = scoresOf(new Map([...ids].filter(([text]) => isPlain(text))), merges);
  const pieces = isFile
    ? file.pieces.map((piece, id) => ({ id, ...piece }))
    : [...ids].map(([text, id]) => {
        const type = typeOf(text);
        return { id, text, type, score: type === TOKEN.normal ? scoreOf(text) : 0 };
      });
  const plain = pieces.filter(({ text }) => isPlain(text)).sort((a, b) => a.id - b.id);
  const scores = new Map(plain.map(({ text, score }) => [text, score]));
  const { addsPrefix, notes } = divisionOf(tokenizer!, plain);
  const unk = ids.get(String(model.unk_token));
  return {
    ...{ pieces, addsPrefix, ids: isFile ? file.ids : unk === undefined ? {} : { unk } },
    notes: [
      ...(file !== null && !isFile ? (["file"] as const) : []),
      ...(areAlike(merges, mergesOf(plain), (text) => scores.get(text)) ? [] : (["merges"] as const)),
      ...notes,
    ],
  };
}

/** A merge as a list of two texts, or as one text. */
const pairIn = (value: unknown): Merge =>
  Array.isArray(value) ? [String(value[0]), String(value[1])] : mergeIn(String(value));

/**
 * How a tokenizer.json treats a text before merges. llama.cpp writes each space as `▁`, puts one before the text, and merges.
 *
 * @param plain tokens that are neither bytes nor added
 */
function divisionOf(
  tokenizer: Readonly<Record<string, unknown>>,
  plain: readonly SentencePiece[],
): { readonly addsPrefix: boolean; readonly notes: readonly Note[] } {
  let [replaces, prepends, prependsSometimes, isOther] = [false, false, false, false];
  for (const step of stepsOf(tokenizer.normalizer, "normalizers")) {
    const pattern = isJsonObject(step.pattern) ? step.pattern.String : undefined;
    if (step.type === "Prepend" && step.prepend === SPACE) prepends = true;
    else if (step.type === "Replace" && pattern === " " && step.content === SPACE) replaces = true;
    else isOther = true;
  }
  for (const step of stepsOf(tokenizer.pre_tokenizer, "pretokenizers")) {
    const scheme = step.prepend_scheme ?? (step.add_prefix_space === false ? "never" : "always");
    if (step.type !== "Metaspace" || step.replacement !== SPACE) isOther = true;
    else {
      replaces = true;
      prependsSometimes = scheme !== "never"; // and never before a space
      isOther ||= step.split !== false && plain.some(({ text }) => text.lastIndexOf(SPACE) > 0);
    }
  }
  return {
    addsPrefix: prepends || prependsSometimes,
    notes: [
      ...(isOther || !replaces ? (["divides"] as const) : []),
      ...(prependsSometimes ? (["prefix"] as const) : []),
    ],
  };
}

/** The steps of a normalizer or a pre-tokenizer, which is one step or a list of them. */
function stepsOf(value: unknown, list: string): readonly Readonly<Record<string, unknown>>[] {
  if (!isJsonObject(value)) return [];
  const steps = value.type === "Sequence" ? value[list] : [value];
  return (Array.isArray(steps) ? steps : []).filter(isJsonObject);
}

/**
 * The parts of a tokenizer.json that depend on its kind. Scores that are all equal say nothing: llama.cpp's converter writes them
 * where it finds no tokenizer.model. Then ids have the order of the merges.
 *
 * @param table      tokens by id
 * @param addsPrefix value of `tokenizer.ggml.add_space_prefix`
 */
export function sentencePieceParts({ tokens, types, scores }: TokenTable, addsPrefix: boolean) {
  const plain = tokens
    .map((text, id) => ({ text, id, score: scores[id]! }))
    .filter(({ id }) => types[id] === TOKEN.normal);
  const isScored = plain.some(({ score }) => score !== plain[0]!.score);
  const replace = { type: "Replace", pattern: { String: " " }, content: SPACE };
  const decoders = [
    { type: "Replace", pattern: { String: SPACE }, content: " " },
    { type: "ByteFallback" },
    { type: "Fuse" },
    ...(addsPrefix ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : []),
  ];
  return {
    normalizer: addsPrefix
      ? { type: "Sequence", normalizers: [{ type: "Prepend", prepend: SPACE }, replace] }
      : replace,
    pre_tokenizer: null,
    decoder: { type: "Sequence", decoders },
    model: { fuse_unk: true, byte_fallback: true, ignore_merges: false },
    merges: mergesOf(isScored ? plain : plain.map(({ text, id }) => ({ text, score: -id }))),
  };
}
