/** The automatic recipe: what it says is what a verification of the written checkpoint finds, and no other choice is better. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type ConvertOptions, convert } from "../../src/api/convert.ts";
import { plan } from "../../src/api/plan.ts";
import { loadModelWithScales } from "../../src/checkpoint/load.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import { CERTIFICATE_FILE } from "../../src/core/checkpoint.ts";
import { bytesOf, countOf } from "../../src/core/dtype.ts";
import type { SearchOptions } from "../../src/sensitivity/options.ts";
import type { RecipeSearch } from "../../src/sensitivity/report.ts";
import type { LogitsMetrics } from "../../src/verify/report.ts";
import { fp8Dialects, golden, workFolder } from "../support/goldens.ts";
import { copyOf, Editor, written } from "../support/verify/planted.ts";

const work = workFolder();
const FP8 = { dtype: "fp8-e4m3", to: "hf", backend: "wasm", threads: 1 } as const;
const AUTO = { ...FP8, recipe: "auto", tokens: 24 } as const;

const chosenOf = ({ points, chosen }: RecipeSearch) => points[chosen]!;

async function searched(source: string, options: SearchOptions): Promise<RecipeSearch> {
  return (await plan(source, join(work, "planned"), { ...AUTO, ...options })).search!;
}

let outputs = 0;
async function converted(source: string, options: ConvertOptions) {
  const out = join(work, `out-${outputs++}`);
  const report = await convert(source, out, { ...FP8, tokens: 24, ...options });
  const rung = report.verification!.rungs.find((one) => one.rung === "logits")!;
  const model = await loadModelWithScales(await openCheckpoint(out), {});
  const bytes = [...model.tensors.values()].reduce((sum, { dtype, shape }) => sum + bytesOf(dtype, shape), 0);
  return { out, report, metrics: rung.metrics as LogitsMetrics, bytes };
}

describe("the search agrees with the verification of what is written", () => {
  it.each([
    ["tiny", { quantScales: "mxfp8" }],
    ["moe", { quantScales: "block" }],
    ["latent-moe", { quantScales: "row" }],
    ["megatron-tp2", { quantScales: "tensor", fuseScales: true }],
  ] as const)("%s, %o", async (name, options) => {
    const { report, metrics, bytes } = await converted(golden(name), { ...AUTO, ...options, kl: 0.006 });
    const { klMean, klP99, top1, bytes: said, cast } = chosenOf(report.search!);
    expect(report.verification!.verdict).toBe("within");
    expect(cast.length).toBeGreaterThan(0);
    expect(Math.abs(klMean / metrics.klMean - 1)).toBeLessThan(1e-5);
    expect(Math.abs(klP99 / metrics.klP99 - 1)).toBeLessThan(1e-4);
    expect(top1).toBe(metrics.top1);
    expect(said).toBe(bytes);
  });

  it("each layer alone, too", async () => {
    const { layers } = await searched(golden("tiny"), { kl: 0.01 });
    const { layer, klMean, bytesSaved } = layers[2]!;
    const all = [0, 1, 2, 3, 4, 5, 6, 7, 8];
    const file = join(work, "alone.yaml");
    const recipe = {
      id: "alone",
      cast: ["ssm.*", "attn.*", "mlp.*"],
      keep_layers: all.filter((l) => l !== layer),
    };
    writeFileSync(file, JSON.stringify(recipe));
    const { metrics, bytes } = await converted(golden("tiny"), { recipe: file, kl: 1 });
    const plain = await loadModelWithScales(await openCheckpoint(golden("tiny")), {});
    const before = [...plain.tensors.values()].reduce(
      (sum, { dtype, shape }) => sum + bytesOf(dtype, shape),
      0,
    );
    expect(Math.abs(klMean / metrics.klMean - 1)).toBeLessThan(1e-5);
    expect(bytesSaved).toBe(before - bytes);
  });
});

it.each(["tiny", "moe"])("at the size of the recipe nemotron-h, %s diverges less", async (name) => {
  const usual = await converted(golden(name), { kl: 1 });
  const model = await loadModelWithScales(await openCheckpoint(usual.out), {});
  const weights = [...model.roles.values()].reduce((sum, { shape }) => sum + countOf(shape), 0);
  const { report, metrics, bytes } = await converted(golden(name), {
    ...AUTO,
    bits: (8 * usual.bytes) / weights,
    kl: 1,
  });
  expect(report.verification!.verdict).toBe("within");
  expect(bytes).toBeLessThanOrEqual(usual.bytes);
  expect(metrics.klMean).toBeLessThan(0.9 * usual.metrics.klMean);
});

it("keeps a layer that a cast would destroy", async () => {
  const editor = new Editor(await copyOf(golden("tiny")));
  const name = "backbone.layers.8.mixer.in_proj.weight";
  const before = await searched(golden("tiny"), { kl: 0.004 });
  expect(chosenOf(before).cast).toContain(8);
  // the scale of an outlier leaves few codes for the other weights
  editor.bytes(name, (bytes) => bytes.set([0x00, 0x46], 0));
  const after = await searched(written(editor.copy, join(work, "outlier")), { kl: 0.004 });
  expect(chosenOf(after).cast).not.toContain(8);
  const alone = (search: RecipeSearch) => search.layers.find(({ layer }) => layer === 8)!.klMean;
  expect(alone(after)).toBeGreaterThan(4 * alone(before));
});

it("gives the same numbers in little memory, with more readings", async () => {
  const wide = await searched(golden("latent-moe"), { kl: 0.004, threads: 1 });
  const narrow = await searched(golden("latent-moe"), { kl: 0.004, threads: 1, memoryBytes: 7 << 20 });
  expect(narrow.readings).toBeGreaterThan(wide.readings);
  expect({ ...narrow, readings: wide.readings }).toEqual(wide);
  const none = searched(golden("latent-moe"), { kl: 0.004, memoryBytes: 6 << 20 });
  await expect(none).rejects.toMatchObject({ code: "PLAN_MEMORY" });
});

it("is recorded as a file would be, and the file makes the same plan", async () => {
  const { out, report } = await converted(golden("tiny"), { ...AUTO, kl: 0.006 });
  const { recipe } = report.search!;
  const certificate = JSON.parse(readFileSync(join(out, CERTIFICATE_FILE), "utf8"));
  expect(certificate.conversion.recipe).toEqual(recipe);
  const file = join(work, "found.yaml");
  writeFileSync(file, JSON.stringify(recipe));
  const again = await plan(golden("tiny"), out, { ...FP8, recipe: file });
  expect(again.id).toBe(report.plan);
});

describe("is refused", () => {
  it.each([
    ["without an FP8 dtype", { dtype: "bf16" }, "USAGE"],
    ["where no layer fits", { kl: 1e-7 }, "PLAN_IMPOSSIBLE"],
    ["with too few bits", { bits: 8 }, "PLAN_IMPOSSIBLE"],
    ["with more bits than there are", { bits: 17 }, "PLAN_IMPOSSIBLE"],
    ["where bits and kl contradict each other", { bits: 12, kl: 0.001 }, "PLAN_IMPOSSIBLE"],
    ["as bits without auto", { recipe: "all-linear", bits: 9 }, "USAGE"],
  ] as const)("%s", async (_, options, code) => {
    const asked = plan(golden("tiny"), join(work, "planned"), { ...AUTO, ...options });
    await expect(asked).rejects.toMatchObject({ code });
  });

  it("for codes", async () => {
    await expect(searched(fp8Dialects("ct-nvfp4"), {})).rejects.toMatchObject({ code: "UNSUPPORTED" });
  });

  it.each(["tensor", "block"] as const)(
    "for a NaN, by tensor and index, with scales by %s",
    async (quantScales) => {
      const editor = new Editor(await copyOf(golden("tiny")));
      const tensor = "backbone.layers.4.mixer.up_proj.weight";
      editor.bytes(tensor, (bytes) => bytes.set([0xc0, 0x7f], 2 * 777));
      const source = written(editor.copy, join(work, `nan-${quantScales}`));
      await expect(searched(source, { quantScales })).rejects.toMatchObject({
        code: "NON_FINITE",
        at: { tensor, index: 777 },
      });
    },
  );
});
