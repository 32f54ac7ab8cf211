/** `prune` with a size in place of a shape: the search chooses, the cut is proved, and its damage is what was measured. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { inspect } from "../../src/api/inspect.ts";
import { type PruneOptions, prune } from "../../src/api/pruning/prune.ts";
import { sizes } from "../../src/api/pruning/sizes.ts";
import { loadModelWithScales } from "../../src/checkpoint/load.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import { measureCuts } from "../../src/pruning/search/measure.ts";
import { heldout, scoresFile } from "../support/cuts.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { minipuzzle, recorded } from "../support/measured-shapes.ts";

const work = workFolder();
const importance = scoresFile(join(work, "scores.safetensors"));
const SERVING = "weights=fp4,kv=fp8,state=bf16,context=1K";
const GRID = "attention=1..3,mamba=6..8,mlp=6..8,ffn=96..128/4";
const WASM = { backend: "wasm", threads: 1, importance, prompts: heldout } as const;
const parent = minipuzzle("parent");

describe("a search", () => {
  const [, , { memory, best }] = recorded.answers as [unknown, unknown, (typeof recorded.answers)[number]];

  it("writes the recorded best shape, with its recorded damage", async () => {
    const out = join(work, "searched");
    const budget = `memory=${memory}B,${SERVING}`;
    const options: PruneOptions = {
      ...WASM,
      to: "hf",
      budget,
      grid: GRID,
      candidates: 8,
      distill: join(work, "kd"),
    };
    const report = await prune(parent, out, options);
    const { attention, mamba, mlp, ffn, parameters, klMean, top1, nll, accuracy } = best[0]!;
    expect(report.architecture).toMatchObject({ counts: { attention, mamba, mlp }, ffn, parameters });
    expect(report.memory).toMatchObject({ total: best[0]!.memory, limit: memory });
    expect(report.search).toMatchObject({ enumerated: 243, fits: 125 });
    expect(report.search!.measured).toHaveLength(8);
    expect(report.verification!.verdict).toBe("within");
    const { damage, search } = report;
    // the written model, run natively, and the masked source: two programs for one number
    const measured = search!.measured[0]!;
    expect(Math.abs(damage!.klMean / measured.klMean - 1)).toBeLessThan(1e-4);
    expect([damage!.top1, damage!.accuracyPruned]).toEqual([measured.top1, measured.accuracy]);
    expect(Math.abs(damage!.klMean / klMean - 1)).toBeLessThan(1e-3);
    expect(
      [damage!.top1 - top1, damage!.nllPruned - nll, damage!.accuracyPruned - accuracy]
        .map(Math.abs)
        .every((d) => d < 1e-4),
    ).toBe(true);
    expect((await inspect(out)).parameters).toBe(parameters);
    expect(readdirSync(join(work, "kd")).sort()).toEqual(["README.md", "distill.sh", "kd_config.yaml"]);
  });

  it("by parameters, written nowhere", async () => {
    const { parameters, best_parameters } = recorded.answers[2]!;
    const report = await prune(parent, undefined, {
      ...WASM,
      params: parameters,
      grid: GRID,
      candidates: 8,
      dryRun: true,
    });
    const [best] = best_parameters;
    expect(report).toMatchObject({ destination: null, memory: null, verification: null });
    expect(report.architecture).toMatchObject({ ffn: best!.ffn, parameters: best!.parameters });
    expect(report.damage!.klMean).toBe(report.search!.measured[0]!.klMean);
    expect(report.search!.measured[0]!.memory).toBeNull();
  });
});

it("a shape with a budget is checked, and its damage is known without writing", async () => {
  const shape = { layers: { attention: 2, mamba: 8, mlp: 8 }, ffn: 124 };
  const budget = (bytes: number) => `memory=${bytes}B,${SERVING}`;
  const report = await prune(parent, undefined, { ...WASM, ...shape, budget: budget(400320), dryRun: true });
  expect(report.memory).toMatchObject({ total: 400320, limit: 400320 });
  expect(report.search).toBeNull();
  expect(report.damage!.klMean).toBeCloseTo(0.0171513, 6);
  const less = prune(parent, undefined, { ...WASM, ...shape, budget: budget(400319), dryRun: true });
  await expect(less).rejects.toMatchObject({ code: "PLAN_IMPOSSIBLE", exit: 2 });
});

it.each<[string, PruneOptions, string]>([
  ["params with a shape", { drop: [1], params: 4e5 }, "belongs to a search"],
  ["a grid with a shape", { drop: [1], grid: GRID }, "belongs to a search"],
  ["candidates without a size", { drop: [1], candidates: 4 }, "belongs to a search"],
  ["a rank with nothing", { rank: "kl" }, "no size was given"],
  ["nothing", {}, "nothing says what stays"],
  ["a bad budget", { budget: "24GiB" }, "expected key=value"],
  ["a grid of another model", { params: 4e5, grid: "mlp=9" }, "the model has 8"],
  ["no parameters", { params: 0 }, "a number of parameters"],
  ["a budget that nothing fits", { budget: "memory=1KiB" }, "the smallest has"],
  ["distill without a destination", { drop: [1], distill: "kd" }, "for a model that is written"],
])("%s: refused with exit status 2, before the source is read", async (_, options, part) => {
  const refused = prune(parent, undefined, { ...WASM, ...options, dryRun: true });
  await expect(refused).rejects.toMatchObject({ exit: 2, message: expect.stringContaining(part) });
});

it("a search needs scores", async () => {
  const { importance: _, ...rest } = WASM;
  const refused = prune(parent, undefined, { ...rest, params: 4e5, dryRun: true });
  await expect(refused).rejects.toMatchObject({ code: "USAGE", message: expect.stringContaining("scores") });
});

it("sizes answers as prune does", async () => {
  const budget = `memory=401662B,${SERVING}`;
  const found = await sizes(parent, { budget, grid: GRID });
  expect(found).toMatchObject({
    search: { enumerated: 243, fits: 161 },
    architecture: { parameters: 477120 },
  });
  const shape = await sizes(parent, { drop: [15], ffn: 124, budget, table: true });
  expect(shape).toMatchObject({
    search: null,
    memory: { total: 400320 },
    architecture: { parameters: 460672 },
  });
  expect(shape.table).toHaveLength(12);
  await expect(sizes(parent, { ffn: 129 })).rejects.toMatchObject({ code: "USAGE" });
  await expect(sizes(parent, { grid: GRID })).rejects.toMatchObject({ code: "USAGE" });
});

it.each(["moe", "latent-moe"])("experts of a cut are those that its own router chooses: %s", async (name) => {
  const model = await loadModelWithScales(await openCheckpoint(golden(name)), {});
  const kept = model.layers
    .filter(({ stack, index }) => stack === "main" && index !== 0)
    .map(({ index }) => index);
  const prompts = [Array.from({ length: 17 }, (_, i) => (37 * i + 5) % model.dims.vocab)];
  const { damages } = await measureCuts(model, [{ layers: kept, ffn: new Map() }], prompts, WASM);
  const { backend, threads } = WASM;
  const report = await prune(golden(name), join(work, name), {
    ...{ backend, threads, prompts },
    to: "hf",
    drop: [0],
  });
  expect(report.verification!.verdict).toBe("within");
  expect(Math.abs(damages[0]!.klMean / report.damage!.klMean - 1)).toBeLessThan(1e-5);
  expect(damages[0]!.top1).toBe(report.damage!.top1);
});
