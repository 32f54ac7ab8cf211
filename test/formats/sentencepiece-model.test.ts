/** tokenizer.model: pieces as the library of SentencePiece gives them, and damage of every kind refused by name. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { isSentencePieceModel, readSentencePieceModel } from "../../formats/gguf/tokenizer/model-file.ts";
import { IsologitError } from "../../src/core/errors.ts";

const folder = new URL("../../fixtures/sentencepiece/", import.meta.url);
const whole = new Uint8Array(readFileSync(new URL("tokenizer.model", folder)));
const { pieces } = JSON.parse(readFileSync(new URL("expected.json", folder), "utf8"));
const read = (bytes: Uint8Array | readonly number[]) =>
  readSentencePieceModel(Uint8Array.from(bytes), "tokenizer.model");

it("has the pieces of the library, in order", () => {
  const model = read(whole);
  expect(model.pieces.map(({ text, score, type }) => [text, score, type])).toEqual(pieces);
  const { kind, ids, addsPrefix, normalizes } = model;
  expect({ kind, ids, addsPrefix, normalizes }).toEqual({
    ...{ kind: "bpe", addsPrefix: true, normalizes: false },
    ids: { unk: 0, bos: 1, eos: 2, pad: -1 },
  });
  expect(isSentencePieceModel(whole)).toBe(true);
});

it("has the defaults of the format", () => {
  const { kind, addsPrefix, normalizes, ids, pieces } = read([0x0a, 3, 0x0a, 1, 0x61]);
  expect({ kind, addsPrefix, normalizes, ids, pieces }).toEqual({
    ...{ kind: "unigram", addsPrefix: true, normalizes: true, ids: { unk: 0, bos: 1, eos: 2, pad: -1 } },
    pieces: [{ text: "a", score: 0, type: 1 }],
  });
});

describe("damage", () => {
  const piece = (...fields: readonly number[]) => [0x0a, fields.length, ...fields];
  it.each<[string, readonly number[], string]>([
    ["a message that is cut", [0x0a, 5, 0x0a], "TRUNCATED"],
    ["a length of 2^62", [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f], "TRUNCATED"],
    ["a length that is negative", [0x0a, ...new Array<number>(9).fill(0xff), 0x01], "TRUNCATED"],
    ["a number without an end", [0x0a, ...new Array<number>(10).fill(0xff)], "HEADER_INVALID"],
    ["a number that ends after the file", [0x0a, 0x80], "TRUNCATED"],
    ["a group", [0x0b], "HEADER_INVALID"],
    ["field 0", [0x02, 0], "HEADER_INVALID"],
    ["a piece that is a number", [0x08, 1], "HEADER_INVALID"],
    ["a piece without a text", piece(0x18, 1), "HEADER_INVALID"],
    ["a score that is not finite", piece(0x0a, 1, 0x61, 0x15, 0, 0, 0xc0, 0x7f), "HEADER_INVALID"],
    ["an unknown type", piece(0x0a, 1, 0x61, 0x18, 7), "HEADER_INVALID"],
    ["a text that is not UTF-8", piece(0x0a, 1, 0xff), "NAME_INVALID"],
    ["an unknown kind of model", [0x12, 2, 0x18, 9], "HEADER_INVALID"],
  ])("%s is refused", (_, bytes, code) => {
    expect(() => read(bytes)).toThrow(expect.objectContaining({ code, exit: 3, at: expect.anything() }));
  });

  it("of two million pieces is refused before they are in memory", () => {
    const bytes = new Uint8Array(5 * 2_000_000);
    for (let at = 0; at < bytes.byteLength; at += 5) bytes.set([0x0a, 3, 0x0a, 1, 0x61], at);
    expect(() => readSentencePieceModel(bytes, "m")).toThrow(
      expect.objectContaining({ code: "LIMIT_EXCEEDED" }),
    );
  });

  it("by a cut anywhere is refused, or leaves whole pieces", () => {
    for (let size = 0; size < whole.byteLength; size += 13) {
      try {
        expect(read(whole.subarray(0, size)).pieces.length).toBeLessThanOrEqual(pieces.length);
      } catch (error) {
        expect(error, String(size)).toBeInstanceOf(IsologitError);
      }
    }
  });
});
