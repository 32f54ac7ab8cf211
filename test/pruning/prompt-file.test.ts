/** Prompts from a file of texts, through the checkpoint's tokenizer, are the prompts of the same ids. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { logits } from "../../src/api/logits.ts";
import { importance } from "../../src/api/pruning/importance.ts";
import { prune } from "../../src/api/pruning/prune.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import { tokenizerOf } from "../../src/tokenizer/tokenizer.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { smallModel } from "../support/small.ts";

const work = workFolder();
const tiny = golden("tiny");
const tokenizer = (await tokenizerOf(await openCheckpoint(tiny)))!;
const TEXTS = ["The river had frozen overnight.", "def mean(values):", "Am Abend kam der Zug."];
const prompts = TEXTS.map((text) => tokenizer.encode(text));
const WASM = { backend: "wasm", threads: 1 } as const;

function fileWith(name: string, text: string): string {
  const file = join(work, name);
  writeFileSync(file, text);
  return file;
}
const lines = fileWith("lines.txt", `${TEXTS.join("\n")}\n\n`);
const json = fileWith("lines.jsonl", TEXTS.map((text) => JSON.stringify({ text })).join("\n"));

it.each([["a text on each line", lines] as const, ["JSON lines", json] as const])(
  "importance: %s",
  async (_, promptFile) => {
    const scored = async (name: string, given: object) => {
      const out = join(work, name);
      const report = await importance(tiny, { ...WASM, ...given, out, cheap: true, overwrite: true });
      return { prompts: report.prompts, tokens: report.tokens, bytes: readFileSync(out).toString("base64") };
    };
    const texts = await scored("texts.safetensors", { promptFile });
    expect(texts.prompts).toBe(3);
    expect(texts).toEqual(await scored("ids.safetensors", { prompts }));
    expect(texts).not.toEqual(await scored("fewer.safetensors", { prompts: prompts.slice(1) }));
  },
);

it("prune: the damage is that on the texts, and the certificate records the first text", async () => {
  const options = { ...WASM, to: "hf", drop: [1] };
  const { damage } = await prune(tiny, join(work, "by-text"), { ...options, promptFile: lines });
  const same = await prune(tiny, undefined, { ...options, prompts, dryRun: true });
  expect(damage!.klMean).toBeCloseTo(same.damage!.klMean, 5);
  expect(damage!.tokens).toBe(prompts.flat().length);
  const { prompt } = JSON.parse(readFileSync(join(work, "by-text", "isologit.certificate.json"), "utf8"));
  expect(prompt).toEqual({ ids: prompts[0], text: TEXTS[0], textTokens: prompts[0]!.length, seed: null });
});

it("logits: a teacher is recorded on texts", async () => {
  const recorded = async (name: string, given: object) => {
    const out = join(work, name);
    await logits(tiny, { ...WASM, ...given, out, topK: 4 });
    return readFileSync(out);
  };
  const [texts, ids] = [await recorded("a", { promptFile: lines }), await recorded("b", { prompts })];
  expect(texts.equals(ids)).toBe(true);
});

it.each<[string, object, string, number]>([
  ["beside ids", { promptFile: lines, ids: [1] }, "together with", 2],
  ["beside prompts", { promptFile: lines, prompts: [[1]] }, "together with", 2],
  ["of no text", { promptFile: fileWith("empty", " \n\n") }, "the file has no prompt", 2],
  ["that is absent", { promptFile: join(work, "absent") }, "no such file", 4],
])("a file %s is refused", async (_, given, part, exit) => {
  const refused = logits(tiny, { ...WASM, ...given, out: join(work, "refused"), topK: 1 });
  await expect(refused).rejects.toMatchObject({ exit });
  await expect(refused).rejects.toThrow(part);
});

it("a model without a tokenizer refuses texts, and takes ids from a file", async () => {
  const mute = await smallModel(join(work, "mute"), "M-");
  const texts = prune(mute, undefined, { ...WASM, drop: [0], dryRun: true, promptFile: lines });
  await expect(texts).rejects.toMatchObject({ code: "USAGE", message: /no tokenizer/ });
  const promptFile = fileWith("ids", "[[1, 2, 3], [4, 5]]");
  const { damage } = await prune(mute, undefined, { ...WASM, drop: [0], dryRun: true, promptFile });
  expect(damage!.tokens).toBe(5);
});
