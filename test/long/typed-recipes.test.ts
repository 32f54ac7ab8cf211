/** The automatic recipe of GGUF on more kinds of models, and in little memory. */
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { type ConvertOptions, convert } from "../../src/api/convert.ts";
import { plan } from "../../src/api/plan.ts";
import type { SearchOptions } from "../../src/sensitivity/options.ts";
import type { RecipeSearch } from "../../src/sensitivity/report.ts";
import { familyGolden, fp8Dialects, ggufGolden, golden, workFolder } from "../support/goldens.ts";
import { converted, sensitisedModel } from "../support/typed-recipes.ts";
import { copyOf, Editor, written } from "../support/verify/planted.ts";

const work = workFolder();
const RUN = { backend: "wasm", threads: 1, tokens: 24 } as const;
const AUTO = { ...RUN, recipe: "auto" } as const;

const chosenOf = ({ points, chosen }: RecipeSearch) => points[chosen]!;

async function searched(source: string, options: SearchOptions): Promise<RecipeSearch> {
  return (await plan(source, join(work, "planned.gguf"), { ...AUTO, ...options })).search!;
}

let outputs = 0;
const convertedTo = (source: string, options: ConvertOptions) =>
  converted(source, join(work, `out-${outputs++}.gguf`), { ...RUN, ...options });

let sensitised: string;
beforeAll(async () => {
  sensitised = await sensitisedModel(work);
});

describe("the search agrees with the verification of what is written", () => {
  it.each([
    ["tiny", golden("tiny"), { bits: 6 }],
    ["latent-moe, with a prediction layer", golden("latent-moe"), { bits: 6.5 }],
    ["a model with a tied head", familyGolden("qwen2"), { kl: 0.01 }],
    ["a GGUF", ggufGolden("k-bf16.gguf"), { kl: 0.003 }],
    ["codes of FP8", fp8Dialects("ct-block-128"), { bits: 6 }],
  ] as const)("%s", async (_, source, limits) => {
    const { report, metrics, bytes, types } = await convertedTo(source, { ...AUTO, ...limits });
    const { search, verification } = report;
    const { klMean, klP99, top1, bytes: said, bitsPerWeight } = chosenOf(search!);
    expect(verification!.verdict).toBe("within");
    expect(Math.abs(klMean / metrics.klMean - 1)).toBeLessThan(1e-5);
    expect(Math.abs(klP99 / metrics.klP99 - 1)).toBeLessThan(1e-4);
    expect([top1, said]).toEqual([metrics.top1, bytes]);
    for (const { tensor, dtype } of search!.tensors!) expect(types[tensor], tensor).toBe(dtype);
    if ("bits" in limits) expect(bitsPerWeight).toBeLessThanOrEqual(limits.bits);
    else expect(metrics.klMean).toBeLessThanOrEqual(limits.kl);
  });
});

it.each([
  ["q4_k_m", 0.95],
  ["q5_k_m", 0.6],
] as const)(
  "with no more bytes than %s, a model with a sensitive layer diverges less",
  async (kind, share) => {
    const usual = await convertedTo(sensitised, { dtype: kind });
    const { points } = await searched(sensitised, { bits: 8 });
    const { bitsPerWeight, klMean } = points.find((point) => point.kind === kind)!;
    expect(Math.abs(klMean / usual.metrics.klMean - 1)).toBeLessThan(1e-5);
    const { metrics, bytes } = await convertedTo(sensitised, { ...AUTO, bits: bitsPerWeight });
    expect(bytes).toBeLessThanOrEqual(usual.bytes);
    expect(metrics.klMean).toBeLessThan(share * usual.metrics.klMean);
  },
);

it("bits go to the layer that adds most", async () => {
  const { tensors } = await searched(sensitised, { bits: 5.5 });
  const layers = new Map<number | null, string[]>();
  for (const { layer, dtype } of tensors!) layers.set(layer, [...(layers.get(layer) ?? []), dtype]);
  expect(layers.get(1)).not.toContain("Q4_K");
  expect(new Set(layers.get(3))).toEqual(new Set(["Q4_K"])); // the other MLP
});

it("a divergence is kept with fewer bytes than the smallest kind that keeps it", async () => {
  const { points, chosen } = await searched(sensitised, { kl: 0.02 });
  const kinds = points.filter(({ kind, klMean }) => kind !== undefined && klMean <= 0.02);
  expect(points[chosen]!.klMean).toBeLessThanOrEqual(0.02);
  expect(points[chosen]!.bytes).toBeLessThan(Math.min(...kinds.map(({ bytes }) => bytes)));
});

it("gives the same numbers in little memory, with more readings", async () => {
  const options = { bits: 5.5, threads: 1 };
  const wide = await searched(golden("latent-moe"), options);
  const narrow = await searched(golden("latent-moe"), { ...options, memoryBytes: 8 << 20 });
  expect(narrow.readings).toBeGreaterThan(wide.readings);
  expect({ ...narrow, readings: wide.readings }).toEqual(wide);
});

it("types that cannot hold a weight are not chosen", async () => {
  const plain = join(work, "large plain");
  await convert(ggufGolden("k-bf16.gguf"), plain, { to: "hf", dtype: "bf16", verify: "off" });
  const editor = new Editor(await copyOf(plain));
  const name = "backbone.layers.1.mixer.up_proj.weight";
  editor.bytes(name, (bytes) => bytes.set([0xc3, 0x47], 0)); // 99840, beyond F16
  const source = written(editor.copy, join(work, "large"));
  const { report, types } = await convertedTo(source, { ...AUTO, kl: 0.01 });
  expect(report.verification!.verdict).toBe("within");
  expect(types["blk.1.ffn_up.weight"]).not.toBe("F16");
  const { points } = report.search!;
  expect(points.every(({ klMean }) => Number.isFinite(klMean))).toBe(true);
});
