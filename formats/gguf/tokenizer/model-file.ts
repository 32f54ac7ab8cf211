/** Reads a SentencePiece model, `tokenizer.model`: a message of Protocol Buffers with the pieces of a vocabulary. */
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { type ErrorLocation, IsologitError } from "../../../src/core/errors.ts";

/** The kinds of models by their number. */
const KINDS = ["", "unigram", "bpe", "word", "char"] as const;
/** A piece of this type is plain text. The numbers of all types are those of llama.cpp. */
const NORMAL = 1;
const TYPES = 6;
/** The largest vocabulary known has 262,144 pieces. */
const MAX_PIECES = 2 ** 20;
/** The file begins with its first piece: field 1, as bytes. */
const FIRST_BYTE = 0x0a;
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export interface SentencePiece {
  readonly text: string;
  readonly score: number;
  /** 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte */
  readonly type: number;
}

export interface SentencePieceModel {
  readonly kind: (typeof KINDS)[number];
  /** by id */
  readonly pieces: readonly SentencePiece[];
  /** ids of special tokens; -1 for a token that the model does not have */
  readonly ids: Readonly<Record<"unk" | "bos" | "eos" | "pad", number>>;
  /** whether each text gets a space before it */
  readonly addsPrefix: boolean;
  /** whether characters or runs of spaces are replaced before a text is divided */
  readonly normalizes: boolean;
}

/** Whether bytes may be such a model. Other software has text files of the same name. */
export const isSentencePieceModel = (bytes: Uint8Array): boolean => bytes[0] === FIRST_BYTE;

/**
 * @throws HEADER_INVALID, TRUNCATED, LIMIT_EXCEEDED for more than 2^20 pieces, NAME_INVALID for a piece that is not UTF-8
 * @see sentencepiece_model.proto of google/sentencepiece: the numbers of the fields
 */
export function readSentencePieceModel(bytes: Uint8Array, file: string): SentencePieceModel {
  const pieces: SentencePiece[] = [];
  const trainer = { kind: 1, unk: 0, bos: 1, eos: 2, pad: -1, suffix: 0 };
  const normalizer = { charsmap: 0, addsPrefix: 1, removesSpaces: 1 };
  eachField(bytes, { file }, (reader, field, type) => {
    if (field > 3) return false; // samples for a test, and a normalizer of results
    if (type !== WireType.LengthDelimited)
      throw new IsologitError("HEADER_INVALID", `field ${field} holds no message`, { file });
    const message = reader.bytes();
    const at = { file, offset: message.byteOffset - bytes.byteOffset };
    if (field === 1) pieces.push(readPiece(message, at));
    else if (field === 2) setNumbers(trainer, TRAINER, message, at);
    else setNumbers(normalizer, NORMALIZER, message, at);
    if (pieces.length > MAX_PIECES)
      throw new IsologitError("LIMIT_EXCEEDED", `more than ${MAX_PIECES} pieces`, at);
    return true;
  });
  const kind = KINDS[trainer.kind];
  if (!kind) throw new IsologitError("HEADER_INVALID", `model type ${trainer.kind} is not known`, { file });
  const { unk, bos, eos, pad, suffix } = trainer;
  return {
    ...{ kind, pieces, ids: { unk, bos, eos, pad }, addsPrefix: normalizer.addsPrefix !== 0 },
    normalizes: normalizer.charsmap > 0 || normalizer.removesSpaces !== 0 || suffix !== 0,
  };
}

/** Fields of the messages of trainer and normalizer, by their number. Of a field of bytes its size is kept. */
const TRAINER = { 3: "kind", 24: "suffix", 40: "unk", 41: "bos", 42: "eos", 43: "pad" } as const;
const NORMALIZER = { 2: "charsmap", 3: "addsPrefix", 4: "removesSpaces" } as const;

function setNumbers<Name extends string>(
  into: Record<Name, number>,
  names: Readonly<Record<number, Name>>,
  message: Uint8Array,
  at: ErrorLocation,
): void {
  eachField(message, at, (reader, field, type) => {
    const name = names[field];
    if (name === undefined) return false;
    if (type === WireType.Varint) into[name] = reader.int32();
    else if (type === WireType.LengthDelimited) into[name] = reader.bytes().byteLength;
    else return false;
    return true;
  });
}

function readPiece(message: Uint8Array, at: ErrorLocation): SentencePiece {
  let [text, score, type] = ["", 0, NORMAL];
  eachField(message, at, (reader, field, wire) => {
    if (field === 1 && wire === WireType.LengthDelimited) text = textIn(reader.bytes(), at);
    else if (field === 2 && wire === WireType.Bit32) score = reader.float();
    else if (field === 3 && wire === WireType.Varint) type = reader.int32();
    else return false;
    return true;
  });
  if (text === "" || !Number.isFinite(score) || type < 1 || type > TYPES) {
    const message = `the piece ${JSON.stringify(text)} has score ${score} and type ${type}; expected a text, a finite score and a type from 1 to ${TYPES}`;
    throw new IsologitError("HEADER_INVALID", message, at);
  }
  return { text, score, type };
}

function textIn(bytes: Uint8Array, at: ErrorLocation): string {
  try {
    return UTF8.decode(bytes);
  } catch (cause) {
    throw new IsologitError("NAME_INVALID", "a piece is not UTF-8", at, { cause });
  }
}

/**
 * Reads the fields of a message in order.
 *
 * @param take reads the value of a field, or returns false to skip it
 * @throws TRUNCATED for a field that ends after the message; HEADER_INVALID for one that no writer makes
 */
function eachField(
  message: Uint8Array,
  at: ErrorLocation,
  take: (reader: BinaryReader, field: number, type: WireType) => boolean,
): void {
  const reader = new BinaryReader(message);
  try {
    while (reader.pos < reader.len) {
      const [field, type] = reader.tag();
      if (!take(reader, field, type)) reader.skip(type, field);
    }
  } catch (cause) {
    if (cause instanceof IsologitError) throw cause;
    const code = cause instanceof RangeError ? "TRUNCATED" : "HEADER_INVALID";
    const what = `the message of Protocol Buffers cannot be read: ${(cause as Error).message}`;
    throw new IsologitError(code, what, { ...at, offset: (at.offset ?? 0) + reader.pos }, { cause });
  }
}
