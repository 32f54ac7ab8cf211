/** What the forward passes read: ids that cover a vocabulary, text, and where each came from. */
import { describe, expect, it } from "vitest";
import { TEXTS } from "../../src/inference/prompt-texts.ts";
import type { PromptOptions } from "../../src/inference/prompts.ts";
import { promptOf, seededIds } from "../../src/inference/prompts.ts";
import { codeOf } from "../support/errors.ts";
import { golden } from "../support/goldens.ts";
import { metricsWith } from "../support/rungs.ts";
import { copyOf, opened } from "../support/verify/planted.ts";
import { verifyCheckpoints } from "../support/verify/verify-checkpoints.ts";

const tiny = await copyOf(golden("tiny"));
const mute = { ...tiny, files: new Map([...tiny.files].filter(([path]) => path !== "tokenizer.json")) };
const of = async (options: PromptOptions, copy = tiny) => promptOf(options, await opened(copy), 512);

describe("seeded ids", () => {
  it.each([
    [17, 512],
    [64, 512],
    [64, 131072],
    [500, 131072],
  ])("%i of them leave no stretch of a vocabulary of %i out", (tokens, vocab) => {
    for (const seed of [0, 1, 12345]) {
      const ids = [...seededIds(tokens, seed, vocab)].sort((a, b) => a - b);
      const gaps = ids.map((id, i) => id - (ids[i - 1] ?? ids.at(-1)! - vocab));
      expect(new Set(ids).size).toBe(tokens);
      expect(Math.max(...gaps)).toBeLessThan((2.7 * vocab) / tokens);
    }
  });
});

describe("the prompt", () => {
  it("is bundled text and 64 seeded ids, or without a tokenizer the ids alone", async () => {
    const prompt = await of({});
    expect(prompt.textTokens).toBe(64);
    expect(prompt.ids.slice(64)).toEqual(seededIds(64, 0, 512));
    expect(prompt).toMatchObject({ text: TEXTS.join(""), seed: 0 });
    expect(await of({}, mute)).toEqual({ ids: seededIds(64, 0, 512), textTokens: 0, text: null, seed: 0 });
  });

  it("is as long as --tokens says, --prompt's text, or the ids that are given", async () => {
    expect(await of({ tokens: 5, seed: 3 })).toEqual({
      ids: seededIds(5, 3, 512),
      textTokens: 0,
      text: null,
      seed: 3,
    });
    const hello = await of({ prompt: "Hello world" });
    expect(hello).toEqual({ ids: hello.ids, textTokens: 9, text: "Hello world", seed: null });
    const both = await of({ prompt: "Hello world", tokens: 4 });
    expect(both).toMatchObject({ ids: [...hello.ids, ...seededIds(4, 0, 512)], textTokens: 9, seed: 0 });
    expect(await of({ ids: [1, 2] })).toEqual({ ids: [1, 2], textTokens: 0, text: null, seed: null });
  });

  it.each([
    { prompt: "x", ids: [1] },
    { prompt: "x", tokens: 0 },
  ])("%j is refused", async (options) => {
    expect(await codeOf(() => of(options))).toBe("USAGE");
  });

  it("a text needs a tokenizer whose words the model has", async () => {
    expect(await codeOf(() => of({ prompt: "x" }, mute))).toBe("USAGE");
    expect(await codeOf(async () => promptOf({ prompt: "Hello" }, await opened(tiny), 90))).toBe("USAGE");
    expect((await promptOf({}, await opened(tiny), 90)).textTokens).toBe(0); // bundled text is left out
  });
});

it("the loss is that of the text alone, and random weights are named", async () => {
  const run = async (options: PromptOptions) => {
    const report = await verifyCheckpoints(await opened(tiny), await opened(tiny), {
      ...options,
      threads: 1,
    });
    return { report, ...metricsWith(report, "logits", "positions") };
  };
  const whole = await run({ prompt: "Hello world" });
  const more = await run({ prompt: "Hello world", tokens: 20 });
  expect(more.tokens).toBe(29);
  expect(more.nllA).toBe(whole.nllA);
  expect(more.report.findings.join()).toMatch(/loss on text is .* chance/);
  expect((await run({ tokens: 5 })).report.findings).toEqual([]);
});
