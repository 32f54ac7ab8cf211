/** tokenizer.model as bytes of strangers: what is cut or no message is refused with the place. */
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { readSentencePieceModel } from "../../formats/gguf/tokenizer/model-file.ts";

const whole = new Uint8Array(
  readFileSync(new URL("../../fixtures/sentencepiece/tokenizer.model", import.meta.url)),
);
const read = (bytes: Uint8Array) => readSentencePieceModel(bytes, "tokenizer.model");

/** A message of field 1, whose bytes are these. */
const piece = (...bytes: number[]) => Uint8Array.from([0x0a, bytes.length, ...bytes]);

it("a file that is cut inside a field ends there", () => {
  const { pieces } = read(whole);
  expect(pieces.length).toBeGreaterThan(100);
  const end = 2 + whole[1]!; // of the first piece
  expect(read(whole.subarray(0, end)).pieces).toEqual(pieces.slice(0, 1));
  for (const size of [1, 2, end - 1, end + 1])
    expect(() => read(whole.subarray(0, size)), `${size}`).toThrow(
      expect.objectContaining({
        code: "TRUNCATED",
        at: expect.objectContaining({ file: "tokenizer.model" }),
      }),
    );
});

it.each<[string, string, Uint8Array]>([
  ["a field whose kind is unknown", "HEADER_INVALID", Uint8Array.from([0x0f, 0])],
  ["field 0", "HEADER_INVALID", Uint8Array.from([0x02, 0])],
  ["a number in place of a piece", "HEADER_INVALID", Uint8Array.from([0x08, 1])],
  ["a number that does not end", "HEADER_INVALID", Uint8Array.from([0x0a, ...new Array(11).fill(0xff)])],
  ["a group that does not end", "TRUNCATED", piece(0x0b)],
  ["a text longer than its piece", "TRUNCATED", piece(0x0a, 0x7f, 0x41)],
  ["a score that is cut", "TRUNCATED", piece(0x0a, 1, 0x41, 0x15, 0, 0)],
  ["a piece without a text", "HEADER_INVALID", piece(0x18, 1)],
  ["a text that is not UTF-8", "NAME_INVALID", piece(0x0a, 1, 0xff)],
])("%s is refused", (_, code, bytes) => {
  expect(() => read(bytes)).toThrow(expect.objectContaining({ code }));
});
