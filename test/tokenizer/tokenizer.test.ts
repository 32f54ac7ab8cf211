/** Ids as the tokenizers library for Python gives them, from the same tokenizer.json. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { hf } from "../../formats/hf/format.ts";
import { type Tokenizer, tokenizerOf } from "../../src/tokenizer/tokenizer.ts";
import { codeOf } from "../support/errors.ts";
import { golden } from "../support/goldens.ts";
import { memoryStore } from "../support/memory-store.ts";
import { copyOf, opened } from "../support/verify/planted.ts";

const tiny = await copyOf(golden("tiny"));
const tokenizer = (await tokenizerOf(await opened(tiny))) as Tokenizer;
const expected: { text: string; ids: number[] }[] = JSON.parse(
  readFileSync(new URL("../../fixtures/tokenizer/expected.json", import.meta.url), "utf8"),
);

describe("texts in several scripts, code, controls, joined emoji", () => {
  it.each(expected)("$text", ({ text, ids }) => {
    expect(tokenizer.encode(text)).toEqual(ids);
  });
});

it("gives a text back", () => {
  for (const { text, ids } of expected) expect(tokenizer.decode(ids)).toContain(text.trim());
});

it("is null where there is none, and refused where it is none", async () => {
  const without = { ...tiny, files: new Map([...tiny.files].filter(([path]) => path !== "tokenizer.json")) };
  expect(await tokenizerOf(await opened(without))).toBeNull();
  const broken = (text: string) => ({
    ...tiny,
    files: new Map([...tiny.files, ["tokenizer.json", Buffer.from(text)]]),
  });
  for (const text of ["{", "[]", "{}", '{"model":{"type":"Spells"},"added_tokens":[]}']) {
    expect(await codeOf(async () => tokenizerOf(await opened(broken(text)))), text).toBe("CONFIG_INVALID");
  }
});

it("is found in any format's side files, by their neutral path", async () => {
  const files = new Map([["model.safetensors", Buffer.from([2, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0x7d])]]);
  const { store, ...bare } = await hf.read(memoryStore("memory", files));
  const bytes = Buffer.concat([Buffer.from("head"), tiny.files.get("tokenizer.json")!]);
  const inside = memoryStore("memory", new Map([["all", bytes]]));
  const span = { file: "all", offset: 4, size: bytes.byteLength - 4 };
  const found = await tokenizerOf({ ...bare, store: inside, sidecars: [{ path: "tokenizer.json", span }] });
  expect(found?.encode("Hello")).toEqual(tokenizer.encode("Hello"));
  expect(store.url).toBe("memory");
});
