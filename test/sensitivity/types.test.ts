/** The automatic recipe of GGUF: what it says is what a verification of the written file finds, and plain kinds are not better. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import type { ConvertOptions } from "../../src/api/convert.ts";
import { plan } from "../../src/api/plan.ts";
import { ggufGolden, workFolder } from "../support/goldens.ts";
import { converted, sensitisedModel } from "../support/typed-recipes.ts";

const work = workFolder();
const RUN = { backend: "wasm", threads: 1, tokens: 16 } as const;
const AUTO = { ...RUN, recipe: "auto" } as const;

let outputs = 0;
const convertedTo = (source: string, options: ConvertOptions) =>
  converted(source, join(work, `out-${outputs++}.gguf`), { ...RUN, ...options });

let sensitised: string;
beforeAll(async () => {
  sensitised = await sensitisedModel(work);
});

it("a model with a sensitive layer: as the verification finds, better than Q4_K_M of the same size, and kept as a file", async () => {
  const { out, report, metrics, bytes, types } = await convertedTo(sensitised, { ...AUTO, bits: 4.75 });
  const { points, chosen, tensors, recipe } = report.search!;
  const { klMean, klP99, top1, bytes: said, bitsPerWeight } = points[chosen]!;
  expect(report.verification!.verdict).toBe("within");
  expect(Math.abs(klMean / metrics.klMean - 1)).toBeLessThan(1e-5);
  expect(Math.abs(klP99 / metrics.klP99 - 1)).toBeLessThan(1e-4);
  expect([top1, said]).toEqual([metrics.top1, bytes]);
  for (const { tensor, dtype, klMean: alone } of tensors!) {
    expect(types[tensor], tensor).toBe(dtype);
    expect(alone, tensor).toBeGreaterThan(0);
  }
  expect(bitsPerWeight).toBeLessThanOrEqual(4.75);

  const usual = points.find(({ kind }) => kind === "q4_k_m")!;
  const better = points.filter((point) => point.bytes <= usual.bytes && point.klMean < 0.95 * usual.klMean);
  expect(better.length).toBeGreaterThan(0);

  const file = join(work, "found.yaml");
  writeFileSync(file, JSON.stringify(recipe));
  const again = await plan(sensitised, out, { recipe: file });
  expect(again.id).toBe(report.plan);
  expect(again.fileKind).toMatchObject({ id: "auto" });
});

describe("is refused", () => {
  const source = ggufGolden("k-bf16.gguf");
  it.each([
    ["beside a kind of file", { dtype: "q4_k_m", bits: 5 }, "USAGE", "leave `dtype` out"],
    ["beside ends", { keepEnds: 1, bits: 5 }, "USAGE", ""],
    ["with fewer bits than the smallest types have", { bits: 4.4 }, "PLAN_IMPOSSIBLE", "allow more `bits`"],
    [
      "where bits and kl contradict each other",
      { bits: 5, kl: 1e-7 },
      "PLAN_IMPOSSIBLE",
      "allow more `bits`",
    ],
    ["for another destination without a dtype", { to: "hf", bits: 5 }, "USAGE", "add `dtype`"],
  ] as const)("%s", async (_, options, code, next) => {
    const asked = plan(source, join(work, "planned.gguf"), { ...AUTO, ...options });
    await expect(asked).rejects.toMatchObject({ code, next: expect.stringContaining(next) });
  });

  const recipeFile = (types: object, more: object = {}): string => {
    const file = join(work, `recipe-${outputs++}.yaml`);
    writeFileSync(file, JSON.stringify({ id: "mine", types, ...more }));
    return file;
  };

  it.each([
    ["a tensor that does not exist", { Q4_K: ["blk.9.ffn_up.weight"] }, {}, "no such tensor"],
    ["a type that the rows do not have", { Q4_0: ["blk.1.ffn_up.weight"] }, {}, "it can be Q4_K"],
    ["a vector", { Q4_K: ["blk.1.attn_norm.weight"] }, {}, "it can be F32"],
    ["a type that is not written", { Q3_K: ["blk.1.ffn_up.weight"] }, {}, "types"],
    ["rules beside types", { Q4_K: ["blk.1.ffn_up.weight"] }, { cast: ["*"] }, "no meaning beside"],
  ] as const)("a recipe that names %s", async (_, types, more, message) => {
    const asked = plan(source, join(work, "planned.gguf"), { recipe: recipeFile(types, more) });
    await expect(asked).rejects.toMatchObject({
      code: "RECIPE_INVALID",
      message: expect.stringContaining(message),
    });
  });

  it("a recipe with types for a destination without them, or beside a dtype", async () => {
    const recipe = recipeFile({ Q4_K: ["blk.1.ffn_up.weight"] });
    for (const options of [{ to: "hf" }, { dtype: "bf16" }] as const)
      await expect(plan(source, join(work, "planned.gguf"), { recipe, ...options })).rejects.toMatchObject({
        code: "USAGE",
      });
  });
});
