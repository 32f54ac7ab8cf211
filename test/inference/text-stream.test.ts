import { expect, it } from "vitest";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import { createTextStream } from "../../src/inference/decoding/text-stream.ts";
import { tokenizerOf } from "../../src/tokenizer/tokenizer.ts";
import { golden } from "../support/goldens.ts";

/** Each id is one byte: the hardest case there is. */
const bytes = { decode: (ids: readonly number[]) => new TextDecoder().decode(Uint8Array.from(ids)) };

it("tells whole characters only, and all of the text", () => {
  const text = "lamp, Lampe, 灯, مصباح, 👩‍👩‍👧, é";
  const stream = createTextStream(bytes);
  const pieces = [...new TextEncoder().encode(text)].map((id) => stream.add(id));
  expect(pieces.join("") + stream.end()).toBe(text);
  expect(pieces.some((piece) => piece.includes("\ufffd"))).toBe(false);
  expect(pieces.filter((piece) => piece === "").length).toBeGreaterThan(10);
});

it("what never becomes whole is told at the end", () => {
  const stream = createTextStream(bytes);
  expect([stream.add(0x61), stream.add(0xe7), stream.add(0x81)]).toEqual(["a", "", ""]);
  expect(stream.end()).toBe("\ufffd");
  expect(stream.end()).toBe("");
});

it("is the text that the tokenizer decodes at once", async () => {
  const tokenizer = (await tokenizerOf(await openCheckpoint(golden("tiny"))))!;
  const ids = tokenizer.encode("The lamp on the desk costs 24.5, and 灯 too. 👩‍👩‍👧");
  const stream = createTextStream(tokenizer);
  expect(ids.map((id) => stream.add(id)).join("") + stream.end()).toBe(tokenizer.decode(ids));
});
