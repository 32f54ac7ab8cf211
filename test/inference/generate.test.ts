import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import type { GenerateReport } from "../../src/api/generate.ts";
import { generate } from "../../src/api/generate.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import { createSampler } from "../../src/inference/decoding/sample.ts";
import { chatOf } from "../../src/tokenizer/chat.ts";
import { tokenizerOf } from "../../src/tokenizer/tokenizer.ts";
import { errorOf } from "../support/errors.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { recorded } from "../support/small-model.ts";

const work = workFolder();
const tiny = golden("tiny");
const ids = [5, 9, 77];
const few = { tokens: 6, ignoreEos: true, threads: 1 };

describe("greedy", () => {
  let greedy: GenerateReport;
  beforeAll(async () => {
    greedy = await generate(tiny, { ids, ...few });
  });

  it("goes on as the recorded logits say", async () => {
    const { ids: prompt, after } = await recorded("tiny", "len17");
    const { ids: next } = await generate(tiny, { ids: prompt, tokens: 1, ignoreEos: true });
    expect(next).toEqual([createSampler({})(after(17))]);
  });

  it("is what reading it all again would say", async () => {
    for (const at of [1, 4]) {
      const again = await generate(tiny, { ids: [...ids, ...greedy.ids.slice(0, at)], ...few, tokens: 1 });
      expect(again.ids[0]).toBe(greedy.ids[at]);
    }
  });

  it("tells its text piece by piece, and all of it", async () => {
    const told: string[] = [];
    const report = await generate(tiny, { ids, ...few, onText: (piece) => told.push(piece) });
    expect(told.join("")).toBe(report.text);
    expect(report).toMatchObject({ backend: "wasm", promptIds: ids, ids: greedy.ids, stopped: "tokens" });
  });
});

it.each(["nemo2-tiny", "nemo2-tp2", "nemo1-tiny.nemo", "megatron-tp2"])(
  "%s, in its own dialect, goes on as if it read all again",
  async (name) => {
    const whole = await generate(golden(name), { ids, ...few, tokens: 4 });
    const again = await generate(golden(name), {
      ids: [...ids, ...whole.ids.slice(0, 3)],
      ...few,
      tokens: 1,
    });
    expect(again.ids[0]).toBe(whole.ids[3]);
  },
);

it.each([
  ["packed", { prompt: "The lamp on the desk" }],
  ["nemo2", { prompt: "The lamp on the desk" }],
  ["bridge", { prompt: "The lamp on the desk" }],
  ["megatron", { ids }], // a folder of ranks has no tokenizer
] as const)("what is written as %s says what it said as hf", async (to, prompt) => {
  const other = join(work, to === "packed" ? "model.isologit" : to);
  await convert(tiny, other, { to, verify: "off", ...(to === "megatron" && { tp: 2 }) });
  const [a, b] = [await generate(tiny, { ...prompt, ...few }), await generate(other, { ...prompt, ...few })];
  expect(b.ids).toEqual(a.ids);
  expect(b.text).toBe(to === "megatron" ? null : a.text);
});

it("a seed draws the same again, and another seed other tokens", async () => {
  const drawn = async (seed: number) =>
    (await generate(tiny, { ids, ...few, temperature: 2, topK: 50, seed })).ids;
  expect(await drawn(1)).toEqual(await drawn(1));
  expect(await drawn(1)).not.toEqual(await drawn(2));
});

it("a chat is put as the template has it", async () => {
  const checkpoint = await openCheckpoint(tiny);
  const text = await chatOf(checkpoint, "Who are you?");
  expect(text).toContain("Who are you?");
  expect(text).not.toBe("Who are you?");
  const report = await generate(tiny, { prompt: "Who are you?", chat: true, ...few });
  expect(report.promptIds).toEqual((await tokenizerOf(checkpoint))!.encodeBare(text));
});

describe("refuses", () => {
  it.each([
    [{}, "there is no prompt"],
    [{ ids: [] }, "no token id"],
    [{ ids: [512] }, "outside this vocabulary"],
    [{ ids, chat: true }, "`chat` was given without a text"],
    [{ ids, topK: 5 }, "`topK` has no effect at temperature 0"],
    [{ ids, topP: 0.5 }, "`topP` has no effect"],
    [{ ids, seed: 1 }, "`seed` has no effect"],
    [{ ids, tokens: 0 }, "`tokens` is 0"],
  ])("%j", async (options, saying) => {
    const error = await errorOf(() => generate(tiny, options));
    expect([error.code, error.message]).toEqual(["USAGE", expect.stringContaining(saying)]);
  });
});

it("a memory that is too small is refused with the number that would do, and that one does", async () => {
  const prompt = Array.from({ length: 300 }, (_, i) => (i * 37) % 512);
  const whole = await generate(tiny, { ids: prompt, ...few, tokens: 2 });
  expect(whole.readAtOnce).toBe(300);
  const error = await errorOf(() => generate(tiny, { ids: prompt, ...few, tokens: 2, memoryBytes: 100_000 }));
  expect([error.code, error.exit]).toEqual(["PLAN_MEMORY", 2]);
  const [, needed, kept] = /this needs (\d+), of which (\d+) are the state cache of 301 tokens/.exec(
    error.message,
  )!;
  expect(Number(kept)).toBe(301 * whole.kept.perTokenBytes + whole.kept.fixedBytes);
  const part = await generate(tiny, { ids: prompt, ...few, tokens: 2, memoryBytes: Number(needed) });
  expect(part.readAtOnce).toBeLessThan(300);
  expect(part.ids).toEqual(whole.ids);
});

it("what is kept grows by keys and values alone", async () => {
  const kept = async (tokens: number) => (await generate(tiny, { ids, ...few, tokens })).kept;
  expect(await kept(2)).toEqual(await kept(8));
  const config = JSON.parse(readFileSync(join(tiny, "config.json"), "utf8"));
  const attention = [...config.hybrid_override_pattern].filter((letter) => letter === "*").length;
  const width = config.num_key_value_heads * (config.head_dim ?? config.attention_head_dim);
  expect((await kept(2)).perTokenBytes).toBe(attention * 2 * 4 * width);
});
