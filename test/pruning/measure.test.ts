/** Many cuts of a model in one reading of its weights: each has the damage that an independent program measured. */
import { describe, expect, it } from "vitest";
import type { RunOptions } from "../../src/checkpoint/options.ts";
import type { Event } from "../../src/core/events.ts";
import { runBytes } from "../../src/inference/model-runner.ts";
import type { Damage } from "../../src/pruning/damage.ts";
import type { LayerCut } from "../../src/pruning/search/cut-runs.ts";
import { measureCuts } from "../../src/pruning/search/measure.ts";
import {
  calibration,
  cutOf,
  heldout,
  parentModel,
  recorded,
  recordedScores,
} from "../support/measured-shapes.ts";

const WASM = { backend: "wasm", threads: 1 } as const;
const model = await parentModel();
const scores = await recordedScores();
const LAYERS = [...Array(19).keys()];
const without = (...dropped: readonly number[]): LayerCut => ({
  layers: LAYERS.filter((layer) => !dropped.includes(layer)),
  ffn: new Map(),
});

/** Every twelfth candidate, and the last, which is the parent. */
const sample = recorded.candidates.filter((_, i) => i % 12 === 5 || i === 242);
const cutsOf = (candidates: typeof sample) => candidates.map((candidate) => cutOf(candidate, scores));

it(`${sample.length} of the recorded candidates, with one reading`, async () => {
  const events: Event[] = [];
  const { damages, readings } = await measureCuts(model, cutsOf(sample), heldout, {
    ...WASM,
    watch: (event) => events.push(event),
  });
  for (const [i, { klMean, nll, top1, accuracy }] of sample.entries()) {
    const found = damages[i]!;
    expect(Math.abs(found.klMean - klMean)).toBeLessThanOrEqual(1e-5 * klMean + 1e-7); // recorded with 7 decimals
    expect(Math.abs(found.nllPruned - nll)).toBeLessThan(1e-5);
    expect(Math.abs(found.top1 - top1)).toBeLessThan(1e-5);
    expect(Math.abs(found.accuracyPruned - accuracy)).toBeLessThan(1e-5);
    expect(found).toMatchObject({ tokens: 163, accuracyParent: 16 / 161 });
    expect(found.nllParent).toBeCloseTo(4.240022138, 6);
  }
  expect(readings).toBe(1);
  const advanced = events.reduce((sum, event) => sum + (event.type === "advance" ? event.bytes : 0), 0);
  expect(advanced).toBe(runBytes(model, ["main"]));
});

describe("runs that part", () => {
  it("at any layer, the first and the last as well: the KL of each layer alone is its recorded score", async () => {
    const { damages } = await measureCuts(
      model,
      LAYERS.map((layer) => without(layer)),
      calibration,
      WASM,
    );
    for (const [layer, kl] of scores("layer.kl").entries())
      expect(Math.abs(damages[layer]!.klMean / kl - 1), `layer ${layer}`).toBeLessThan(1e-5);
  });

  it("never: the model itself has a divergence of exactly 0", async () => {
    const { damages } = await measureCuts(model, [without(), without(18), without()], heldout, WASM);
    for (const { klMean, top1, nllParent, nllPruned, accuracyParent, accuracyPruned } of [
      damages[0]!,
      damages[2]!,
    ])
      expect([klMean, top1, nllParent - nllPruned, accuracyParent - accuracyPruned]).toEqual([0, 1, 0, 0]);
    expect(damages[1]!.klMean).toBeGreaterThan(0);
  });

  it("alone and in company are the same bits", async () => {
    const cuts = [without(0), cutOf({ attention: 2, mamba: 7, mlp: 6, ffn: 104 }, scores), without(0, 18)];
    const together = await measureCuts(model, cuts, heldout, WASM);
    for (const [i, cut] of cuts.entries())
      expect((await measureCuts(model, [cut], heldout, WASM)).damages).toEqual([together.damages[i]]);
  });
});

it("silences a channel where its activation is, and nowhere else", async () => {
  const ffn = (kept: readonly number[]): LayerCut => ({ layers: LAYERS, ffn: new Map([[8, kept]]) });
  const all = [...Array(128).keys()];
  const { damages } = await measureCuts(
    model,
    [ffn(all), ffn([]), without(8), ffn(all.slice(1)), ffn(all.slice(0, -1))],
    heldout,
    WASM,
  );
  const [whole, none, absent, first, last] = damages as [Damage, Damage, Damage, Damage, Damage];
  expect(whole.klMean).toBe(0);
  expect(none).toEqual(absent); // a layer that adds zeros is a layer that is skipped
  expect(first.klMean).toBeGreaterThan(0);
  expect(last.klMean).not.toBe(first.klMean);
});

describe("memory", () => {
  const cuts = cutsOf(sample.slice(0, 5));
  const measured = (options: RunOptions) => measureCuts(model, cuts, calibration, { ...WASM, ...options });

  it("gives the same bits in little memory, with more readings", async () => {
    const wide = await measured({});
    const readings = [wide.readings];
    for (const memoryBytes of [1_100_000, 900_000, 700_000]) {
      const narrow = await measured({ memoryBytes });
      expect(narrow.damages).toEqual(wide.damages);
      readings.push(narrow.readings);
    }
    expect((await measured({ threads: 2 })).damages).toEqual(wide.damages);
    expect(readings).toEqual([1, 2, 4, 8]); // 2 and 4 groups of prompts, then 2 groups of cuts as well
    await expect(measured({ memoryBytes: 400_000 })).rejects.toMatchObject({ code: "PLAN_MEMORY", exit: 2 });
  });
});
