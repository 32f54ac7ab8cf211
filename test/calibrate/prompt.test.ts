/** Which token ids a calibration reads, and what it records of them. */
import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { calibrationPrompts } from "../../src/calibrate/prompt.ts";
import { seededIds } from "../../src/inference/prompts.ts";
import { tokenizerOf } from "../../src/tokenizer/tokenizer.ts";
import { errorOf } from "../support/errors.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { copyOf, opened } from "../support/verify/planted.ts";

const VOCAB = 512;
const folder = workFolder();
const tiny = await copyOf(golden("tiny"));
const speaking = await opened(tiny);
const mute = await opened({
  ...tiny,
  files: new Map([...tiny.files].filter(([path]) => path !== "tokenizer.json")),
});

function fileWith(text: string): string {
  const file = join(folder, "prompt");
  writeFileSync(file, text);
  return file;
}

const digestOf = (ids: readonly number[]): string => {
  const bytes = Buffer.alloc(8 * ids.length);
  for (const [i, id] of ids.entries()) bytes.writeUInt32LE(id, 8 * i);
  return createHash("sha256").update(bytes).digest("hex");
};

describe("a file", () => {
  it("with a JSON list of lists is several prompts", async () => {
    const { prompts, record } = await calibrationPrompts(fileWith("[[3, 1],\n [2]]\n"), mute, VOCAB);
    expect(prompts).toEqual([[3, 1], [2]]);
    expect(record).toMatchObject({ prompts: 2, tokens: 3 });
    const outside = calibrationPrompts(fileWith("[[3, 1], [512]]"), mute, VOCAB);
    await expect(outside).rejects.toMatchObject({ code: "USAGE", message: /prompt 1: token id 512/ });
  });

  it.each(["3,1,2", "3 1 2\n", "[3, 1, 2]", " [\n3,\n1,\n2\n]\n", "3, 1 2"])(
    "with %j is token ids",
    async (text) => {
      const { prompts, record, warnings } = await calibrationPrompts(fileWith(text), mute, VOCAB);
      expect(prompts).toEqual([[3, 1, 2]]);
      expect(record).toEqual({ prompt: "PROMPT", tokens: 3, sha256: digestOf([3, 1, 2]) });
      expect(warnings).toEqual([]);
    },
  );

  it.each(["In 2024 it was 3 1 2.", "3 1 2 and more", "[3, 1", "1.5"])(
    "with %j is a text for the tokenizer",
    async (text) => {
      const { prompts, record } = await calibrationPrompts(fileWith(text), speaking, VOCAB);
      const ids = (await tokenizerOf(speaking))!.encode(text);
      expect(prompts).toEqual([ids]);
      expect(record.tokens).toBe(ids.length);
    },
  );

  it("with several lines holds a prompt on each, and its digest tells where one ends", async () => {
    const tokenizer = (await tokenizerOf(speaking))!;
    const { prompts, record } = await calibrationPrompts(
      fileWith("One line.\n\n  and two\r\n"),
      speaking,
      VOCAB,
    );
    expect(prompts).toEqual([tokenizer.encode("One line."), tokenizer.encode("  and two")]);
    const bytes = new BigInt64Array([...prompts[0]!, -1, ...prompts[1]!].map(BigInt));
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    expect(record).toEqual({ prompt: "PROMPT", prompts: 2, tokens: prompts.flat().length, sha256 });
  });

  it("with JSON lines holds texts and ids under the names of data sets", async () => {
    const tokenizer = (await tokenizerOf(speaking))!;
    const lines = [
      '{"text": "a b", "id": 7}',
      '{"prompt": "c"}',
      '"d e"',
      '{"input_ids": [3, 1]}',
      "[2]",
      '{"ids": [4]}',
    ];
    const { prompts } = await calibrationPrompts(fileWith(lines.join("\n")), speaking, VOCAB);
    expect(prompts).toEqual([...["a b", "c", "d e"].map((text) => tokenizer.encode(text)), [3, 1], [2], [4]]);
    const { prompts: one } = await calibrationPrompts(fileWith(lines[3]!), speaking, VOCAB);
    expect(one).toEqual([[3, 1]]);
    const mixed = await calibrationPrompts(fileWith('{"text": "a"}\nnot JSON'), speaking, VOCAB);
    expect(mixed.prompts).toEqual(['{"text": "a"}', "not JSON"].map((text) => tokenizer.encode(text)));
  });

  it.each([
    ["an id outside the vocabulary", '{"ids": [3]}\n{"ids": [512]}', /^line 2: token id 512/],
    ["ids that are no numbers", '{"ids": [3]}\n\n{"ids": ["x"]}', /^line 3: token id x/],
    ["an empty prompt", '{"ids": [3]}\n[]', /^line 2: no token id/],
    ["a conversation", '{"ids": [3]}\n{"messages": []}', /an object with the keys messages/],
  ])("with JSON lines of which one holds %s is refused by its line", async (_, text, message) => {
    const file = fileWith(text);
    const error = await errorOf(() => calibrationPrompts(file, mute, VOCAB));
    expect(error).toMatchObject({ code: "USAGE", at: { file }, message: expect.stringMatching(message) });
  });

  it.each([
    ["a text without a tokenizer", "some text"],
    ["an id outside the vocabulary", "3 512"],
    ["nothing", ""],
  ])("with %s is refused by name", async (_, text) => {
    const file = fileWith(text);
    const { code, at } = await errorOf(() => calibrationPrompts(file, mute, VOCAB));
    expect({ code, at }).toEqual({ code: "USAGE", at: { file } });
  });

  it("that is missing is NOT_FOUND", async () => {
    const file = join(folder, "absent");
    expect(await errorOf(() => calibrationPrompts(file, mute, VOCAB))).toMatchObject({
      code: "NOT_FOUND",
      at: { file },
    });
  });
});

describe("without a file", () => {
  it("it is the whole bundled text, without drawn ids", async () => {
    const { prompts, record, warnings } = await calibrationPrompts(true, speaking, VOCAB);
    const [ids, ...others] = prompts as [readonly number[]];
    expect(others).toEqual([]);
    expect(ids.length).toBeGreaterThan(128);
    expect(record).toEqual({ prompt: "bundled", tokens: ids.length, sha256: digestOf(ids) });
    expect(warnings).toEqual([]);
  });

  it("it is drawn ids where there is no tokenizer, with a warning", async () => {
    const { prompts, warnings } = await calibrationPrompts(true, mute, VOCAB);
    expect(prompts).toEqual([seededIds(64, 0, VOCAB)]);
    expect(warnings).toMatchObject([expect.stringContaining("no tokenizer")]);
  });
});
