/** Parts that do nothing score exactly 0, and cutting them changes nothing. A silent Mamba head is not such a part. */
import { join } from "node:path";
import { expect, it } from "vitest";
import { logits } from "../../src/api/logits.ts";
import { prune } from "../../src/api/pruning/prune.ts";
import { relL2 } from "../../src/core/distance.ts";
import { heldout, plantedScores, puzzle } from "../support/cuts.ts";
import { arraysOf, floatsOf, workFolder } from "../support/goldens.ts";

const work = workFolder();
const planted = puzzle("parent-planted");

it("dead channels and layers go, and no logit moves", { timeout: 120_000 }, async () => {
  const [dst, before, after] = ["dst", "before", "after"].map((name) => join(work, name)) as [
    string,
    string,
    string,
  ];
  const first = await prune(planted, undefined, { drop: [2, 3, 10], dryRun: true });
  const importance = plantedScores(join(work, "scores"), first.source.root!);
  const options = { drop: [2, 3, 10], ffn: 119, importance, prompts: heldout };
  const report = await prune(planted, dst, options);
  expect(report.verification?.verdict).toBe("within");
  expect(report.architecture.parameters).toBe(409_896);
  expect(report.damage).toMatchObject({ top1: 1 });
  expect(report.damage!.klMean).toBeLessThan(1e-11);
  for (const [source, out] of [
    [planted, before],
    [dst, after],
  ] as const)
    await logits(source, { out, ids: heldout[1]! });
  const values = async (path: string) => floatsOf((await arraysOf(path)).get("logits")!);
  expect(relL2(await values(before), await values(after))).toBeLessThan(2e-6);
});
