/** Which token ids a calibration reads, and what it records of them. */
import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { calibrationPrompt } from "../../src/calibrate/prompt.ts";
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
  it.each(["3,1,2", "3 1 2\n", "[3, 1, 2]", " [\n3,\n1,\n2\n]\n", "3, 1 2"])(
    "with %j is token ids",
    async (text) => {
      const { ids, record, warnings } = await calibrationPrompt(fileWith(text), mute, VOCAB);
      expect(ids).toEqual([3, 1, 2]);
      expect(record).toEqual({ prompt: "PROMPT", tokens: 3, sha256: digestOf([3, 1, 2]) });
      expect(warnings).toEqual([]);
    },
  );

  it.each(["In 2024 it was 3 1 2.", "3 1 2 and more", "[3, 1", "1.5"])(
    "with %j is a text for the tokenizer",
    async (text) => {
      const { ids, record } = await calibrationPrompt(fileWith(text), speaking, VOCAB);
      expect(ids).toEqual((await tokenizerOf(speaking))!.encode(text));
      expect(record.tokens).toBe(ids.length);
    },
  );

  it.each([
    ["a text without a tokenizer", "some text"],
    ["an id outside the vocabulary", "3 512"],
    ["nothing", ""],
  ])("with %s is refused by name", async (_, text) => {
    const file = fileWith(text);
    const { code, at } = await errorOf(() => calibrationPrompt(file, mute, VOCAB));
    expect({ code, at }).toEqual({ code: "USAGE", at: { file } });
  });

  it("that is missing is NOT_FOUND", async () => {
    const file = join(folder, "absent");
    expect(await errorOf(() => calibrationPrompt(file, mute, VOCAB))).toMatchObject({
      code: "NOT_FOUND",
      at: { file },
    });
  });
});

describe("without a file", () => {
  it("it is the whole bundled text, without drawn ids", async () => {
    const { ids, record, warnings } = await calibrationPrompt(true, speaking, VOCAB);
    expect(ids.length).toBeGreaterThan(128);
    expect(record).toEqual({ prompt: "bundled", tokens: ids.length, sha256: digestOf(ids) });
    expect(warnings).toEqual([]);
  });

  it("it is drawn ids where there is no tokenizer, with a warning", async () => {
    const { ids, warnings } = await calibrationPrompt(true, mute, VOCAB);
    expect(ids).toEqual(seededIds(64, 0, VOCAB));
    expect(warnings).toMatchObject([expect.stringContaining("no tokenizer")]);
  });
});
