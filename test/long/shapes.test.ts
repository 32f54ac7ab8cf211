/** All 243 recorded shapes of the small model, measured in one reading, and the best of each recorded budget. */
import { expect, it } from "vitest";
import { measureCuts } from "../../src/pruning/search/measure.ts";
import { cutOf, heldout, parentModel, recorded, recordedScores } from "../support/measured-shapes.ts";

it("each has its recorded damage, and the best of each budget is the recorded one", async () => {
  const scores = await recordedScores();
  const cuts = recorded.candidates.map((candidate) => cutOf(candidate, scores));
  const { damages, readings } = await measureCuts(await parentModel(), cuts, heldout, { backend: "wasm" });
  expect(readings).toBe(1);
  for (const [i, { klMean, nll, top1, accuracy }] of recorded.candidates.entries()) {
    const found = damages[i]!;
    expect(Math.abs(found.klMean - klMean), `candidate ${i}`).toBeLessThanOrEqual(1e-5 * klMean + 1e-7);
    expect(Math.abs(found.nllPruned - nll)).toBeLessThan(1e-5);
    expect(Math.abs(found.top1 - top1)).toBeLessThan(1e-5);
    expect(Math.abs(found.accuracyPruned - accuracy)).toBeLessThan(1e-5);
  }
  for (const { memory, best, parameters, best_parameters } of recorded.answers) {
    for (const [fits, answer] of [
      [(of: (typeof best)[number]) => of.memory <= memory, best[0]!],
      [(of: (typeof best)[number]) => of.parameters <= parameters, best_parameters[0]!],
    ] as const) {
      const fitting = [...recorded.candidates.keys()].filter((i) => fits(recorded.candidates[i]!));
      const least = fitting.reduce((a, b) => (damages[b]!.klMean < damages[a]!.klMean ? b : a));
      expect(recorded.candidates[least]).toEqual(answer);
    }
  }
}, 300_000);
