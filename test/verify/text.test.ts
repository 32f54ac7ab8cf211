/**
 * A checkpoint that carries a real tokenizer is read text, and where its copy parts from it the report says at which
 * words: the byte-level BPE of the goldens, by the library's own default prompt.
 */
import { describe, expect, it } from "vitest";
import type { VerifyOptions } from "../../src/certificate/options.ts";
import { TEXTS } from "../../src/inference/prompt-texts.ts";
import { promptOf } from "../../src/inference/prompts.ts";
import { htmlText } from "../../src/report/html.ts";
import { tokenizerOf } from "../../src/tokenizer/tokenizer.ts";
import { golden } from "../support/goldens.ts";
import { metricsWith } from "../support/rungs.ts";
import { type Copy, copyOf, Editor, opened } from "../support/verify/planted.ts";
import { verifyCheckpoints } from "../support/verify/verify-checkpoints.ts";

const QUICK: VerifyOptions = { threads: 1, memoryBytes: 64 * 1024 * 1024 };
const tiny = await copyOf(golden("tiny"));
const wrong = new Editor(tiny);
wrong.values("backbone.layers.7.mixer.down_proj.weight", (value) => 1.5 * value);

async function compared(b: Copy, options: VerifyOptions = {}) {
  const report = await verifyCheckpoints(await opened(tiny), await opened(b), { ...QUICK, ...options });
  return { report, metrics: metricsWith(report, "logits", "positions") };
}

describe("the default prompt", async () => {
  const { report, metrics } = await compared(wrong.copy);
  const tokenizer = (await tokenizerOf(await opened(tiny)))!;
  const { ids, textTokens } = await promptOf({}, await opened(tiny), 512);

  it("is the bundled text, each passage's beginning, as the tokenizer spells it", () => {
    const share = textTokens / TEXTS.length;
    for (const [i, text] of TEXTS.entries()) {
      const begins = tokenizer.decode(ids.slice(i * share, (i + 1) * share)).replace(/^<s>/, "");
      // the last character may be cut within its bytes
      expect(text, text).toContain(begins.replace(/\ufffd+$/, "").trim());
      expect(begins.length).toBeGreaterThan(1);
    }
  });

  it("is read whole, and the loss is that of its text", async () => {
    expect(metrics.tokens).toBe(ids.length);
    const alone = await compared(tiny, { ids: ids.slice(0, textTokens) });
    expect(metrics.nllA).toBe(alone.metrics.nllA);
    expect(metrics.nllA).not.toBe(metrics.nllB);
    expect(metrics.positions).toMatchObject({ per: 1, kl: expect.any(Array) });
    expect(metrics.positions.kl).toHaveLength(ids.length);
  });

  it("has its worst tokens told by their words, with what stands before and what either side expects", () => {
    const { worst, kl } = metrics.positions;
    expect(report.verdict).toBe("different");
    expect(worst).toHaveLength(12);
    expect(worst.some(({ position }) => position < textTokens)).toBe(true);
    for (const { position, id, kl: here, bestA, bestB, text } of worst) {
      expect(id).toBe(ids[position]);
      expect(here).toBeCloseTo(kl[position]!, 6);
      expect(text).toEqual({
        before: tokenizer.decode(ids.slice(Math.max(0, position - 8), position)),
        token: tokenizer.decode([id]),
        bestA: tokenizer.decode([bestA!]),
        bestB: tokenizer.decode([bestB!]),
      });
    }
    const page = htmlText({ command: "verify", a: "a", b: "b", report });
    expect(page.match(/<q>/g)!.length).toBeGreaterThanOrEqual(worst.length);
  });
});

const PROMPT = "Grüße aus Köln, 北京!";
it("a prompt of one's own is told by its words too", async () => {
  const { metrics } = await compared(wrong.copy, { prompt: PROMPT });
  expect(metrics.positions.worst.length).toBeGreaterThan(8);
  for (const { text } of metrics.positions.worst) {
    const seen = `${text!.before}${text!.token}`.replace("<s>", "").replace(/^\ufffd+|\ufffd+$/g, "");
    expect(PROMPT).toContain(seen.trim());
  }
});

it("without a tokenizer positions have numbers alone", async () => {
  const mute = (copy: Copy): Copy => ({
    ...copy,
    files: new Map([...copy.files].filter(([path]) => path !== "tokenizer.json")),
  });
  const [a, b] = [await opened(mute(tiny)), await opened(mute(wrong.copy))];
  const report = await verifyCheckpoints(a, b, QUICK);
  const { positions, tokens } = metricsWith(report, "logits", "positions");
  expect(tokens).toBe(64);
  expect(positions.worst.length).toBeGreaterThan(0);
  for (const one of positions.worst) expect(one).not.toHaveProperty("text");
});

describe("the default number of tokens", () => {
  const tokensOf = async (a: Copy, b: Copy, options: VerifyOptions = {}) => {
    const report = await verifyCheckpoints(await opened(a), await opened(b), { ...QUICK, ...options });
    return { verdict: report.verdict, tokens: metricsWith(report, "logits", "positions").tokens };
  };

  it("is 16 where nothing is recast, and more where quality counts", async () => {
    expect(await tokensOf(tiny, tiny)).toEqual({ verdict: "same", tokens: 16 });
    expect(await tokensOf(tiny, tiny, { kl: 1 })).toEqual({ verdict: "same", tokens: 128 });
    expect(await tokensOf(tiny, tiny, { tokens: 5 })).toEqual({ verdict: "same", tokens: 5 });
  });

  it("grows where 16 tokens cannot show a fault", async () => {
    const silent = new Editor(tiny);
    const few = new Set((await promptOf({}, await opened(tiny), 512, "wiring")).ids);
    const width = silent.get("backbone.embeddings.weight").shape[1]!;
    silent.values("backbone.embeddings.weight", (value, i) => (few.has(Math.floor(i / width)) ? 0 : value));
    expect(await tokensOf(silent.copy, silent.copy, { tokens: 16 })).toMatchObject({ verdict: "unproven" });
    expect(await tokensOf(silent.copy, silent.copy)).toEqual({ verdict: "same", tokens: 128 });
  });
});
