/** Layers that go one at a time: each round is measured anew, the least goes, and what was written is proved. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type PruneOptions, prune } from "../../src/api/pruning/prune.ts";
import { dropInRounds } from "../../src/pruning/search/iterative-depth.ts";
import { workFolder } from "../support/goldens.ts";
import { calibration, minipuzzle, parentModel, recordedScores } from "../support/measured-shapes.ts";

const work = workFolder();
const WASM = { backend: "wasm", threads: 1 } as const;
const parent = minipuzzle("parent");
const scores = await recordedScores();
const KINDS = [..."M-M-M*-M-M*-M-M*-M-"];

describe("rounds", () => {
  it("the first score is that of the layer alone, of the layer with the least recorded score", async () => {
    for (const layerScore of ["mse", "rank"] as const) {
      const wanted = scores(`layer.${layerScore}`);
      const mlps = [...KINDS.keys()].filter((layer) => KINDS[layer] === "-");
      const [least] = mlps.sort((a, b) => wanted[a]! - wanted[b]! || b - a);
      const model = await parentModel();
      const { rounds } = await dropInRounds(model, { counts: { mlp: 7 }, layerScore }, calibration, WASM);
      expect(rounds).toMatchObject([{ layer: least, kind: "mlp", candidates: 8, readings: 1 }]);
      // ranks are those among the layers that may go
      if (layerScore !== "rank") expect(Math.abs(rounds[0]!.score / wanted[least!]! - 1)).toBeLessThan(2e-4);
    }
  });
});

it("`prune` writes what the rounds left, without a file of scores, and says so", async () => {
  const dst = join(work, "cut");
  const options: PruneOptions = {
    ...WASM,
    ...{ to: "hf", layers: { mlp: 6 }, layerScore: "kl", iterative: true, prompts: calibration },
  };
  const report = await prune(parent, dst, options);
  expect(report.verification?.verdict).toBe("within");
  const { layerScore, rounds } = report.depth!;
  expect([layerScore, rounds.length]).toEqual(["kl", 2]);
  const byLayer = [...rounds].sort((a, b) => a.layer - b.layer);
  expect(report.dropped).toEqual(byLayer.map(({ layer, kind, score }) => ({ layer, kind, score })));
  // the last round measured the model that was written
  expect(Math.abs(report.damage!.klMean / rounds[1]!.score - 1)).toBeLessThan(1e-4);
  const { cut } = JSON.parse(readFileSync(join(dst, "isologit.certificate.json"), "utf8"));
  expect(cut).toMatchObject({ layerScore: "kl", dropOrder: rounds.map(({ layer }) => layer) });
});

it.each<[string, PruneOptions, string]>([
  ["without numbers of layers", { drop: [1] }, "`layers` gives no number"],
  ["in a search", { params: 4e5 }, "`layers` gives no number"],
  ["by a score that skips no layer", { layers: { mlp: 6 }, layerScore: "cosine" }, "cosine does not"],
  ["with a width and no scores", { layers: { mlp: 6 }, ffn: 96 }, "scores must say"],
])("refused %s", async (_, options, part) => {
  const refused = prune(parent, undefined, { ...options, iterative: true, dryRun: true });
  await expect(refused).rejects.toMatchObject({ exit: 2, message: expect.stringContaining(part) });
});
