/** Layers that go one at a time: rounds over several kinds, in little memory, and what later rounds know. */
import { describe, expect, it } from "vitest";
import { dropInRounds } from "../../src/pruning/search/iterative-depth.ts";
import { calibration, parentModel, recordedScores } from "../support/measured-shapes.ts";

const WASM = { backend: "wasm", threads: 1 } as const;
const scores = await recordedScores();

describe("rounds", { timeout: 120_000 }, () => {
  it("of each score begin with the layer of the least recorded score", async () => {
    const model = await parentModel();
    for (const layerScore of ["mse", "kl", "logits_nmse"] as const) {
      const wanted = scores(`layer.${layerScore}`);
      const [least] = [...wanted.keys()].sort((a, b) => wanted[a]! - wanted[b]!);
      const counts = { mamba: 7, attention: 2, mlp: 7 };
      const { rounds } = await dropInRounds(model, { counts, layerScore }, calibration, WASM);
      expect(rounds[0]!.layer).toBe(least);
      expect(Math.abs(rounds[0]!.score / wanted[least!]! - 1)).toBeLessThan(2e-4);
    }
  });

  it("of several kinds stop at their numbers, and little memory changes no bit", async () => {
    const counts = { mamba: 7, attention: 2, mlp: 7 };
    const model = await parentModel();
    const request = { counts, layerScore: "kl" } as const;
    const wide = await dropInRounds(model, request, calibration, WASM);
    expect(wide.rounds.map(({ kind }) => kind).sort()).toEqual(["attention", "mamba", "mlp"]);
    const [first, second, third] = wide.rounds.map(({ candidates }) => candidates);
    expect([first, second! < first!, third! < second!]).toEqual([19, true, true]);
    const narrow = await dropInRounds(model, request, calibration, { ...WASM, memoryBytes: 900_000 });
    const bits = (of: typeof wide) => of.rounds.map(({ readings: _, ...round }) => round);
    expect(bits(narrow)).toEqual(bits(wide));
    expect(narrow.rounds.every(({ readings }) => readings > 1)).toBe(true);
  });

  it("measure what is left, and not the layers alone: a copy of a layer is missed only once", async () => {
    // two layers that do nothing alone are free together; later scores must be those of the shorter model
    const model = await parentModel();
    const { rounds } = await dropInRounds(
      model,
      { counts: { mamba: 5 }, layerScore: "kl" },
      calibration,
      WASM,
    );
    const alone = scores("layer.kl");
    expect(rounds).toHaveLength(3);
    expect(rounds[1]!.score).toBeGreaterThan(1.2 * alone[rounds[1]!.layer]!);
    expect(rounds[2]!.score).toBeGreaterThan(rounds[1]!.score);
  });
});
