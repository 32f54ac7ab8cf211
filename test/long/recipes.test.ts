/** The automatic recipe beside a trial of all sets of layers. */
import { expect, it } from "vitest";
import { loadModelWithScales } from "../../src/checkpoint/load.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import { preparePlan } from "../../src/convert/prepare.ts";
import type { Plan } from "../../src/convert/types.ts";
import { promptOf } from "../../src/inference/prompts.ts";
import { Measuring } from "../../src/sensitivity/measuring.ts";
import { castingLayers, LAYER_UNITS, roundLayers } from "../../src/sensitivity/rounded-layers.ts";
import { searchRecipe } from "../../src/sensitivity/search.ts";
import { golden } from "../support/goldens.ts";

const AUTO = {
  dtype: "fp8-e4m3",
  to: "hf",
  recipe: "auto",
  klP99: 100,
  tokens: 64,
  backend: "wasm",
} as const;

/** The search, and the plan with all layers cast. */
async function searched(name: string, limit: { readonly kl: number } | { readonly bits: number }) {
  const options = { ...AUTO, ...limit };
  let widest: Plan | undefined;
  const { search } = await preparePlan(golden(name), "planned", options, {
    searchRecipe: (model, planWith, writer) =>
      searchRecipe(model, options, async (recipe) => (widest ??= await planWith(recipe)), writer),
    calibrate: async () => null,
  });
  return { found: search!.points[search!.chosen]!, search: search!, widest: widest! };
}

it.each(["tiny", "moe", "latent-moe"])("%s: close to the best of all sets", async (name) => {
  const { search, widest } = await searched(name, { kl: 0.01 });
  const { layers, points } = search;
  const source = await loadModelWithScales(await openCheckpoint(golden(name)), {});
  const prompt = await promptOf(AUTO, source.checkpoint, source.dims.vocab);
  const { roundings, sources } = await roundLayers(source, widest, AUTO);
  const rounded = { roundings, units: LAYER_UNITS };
  await using measuring = await Measuring.open(source, rounded, sources, prompt, AUTO);
  const sets = Array.from({ length: 2 ** layers.length }, (_, mask) =>
    layers.filter((_, i) => ((mask >> i) & 1) === 1),
  );
  const kls: number[] = [];
  for (let at = 0; at < sets.length; at += 128) {
    const variants = sets.slice(at, at + 128).map((set) => castingLayers(set.map(({ layer }) => layer)));
    kls.push(...(await measuring.run(variants)).map(({ klMean }) => klMean));
  }
  const [{ bytes: most, bitsPerWeight }] = points as [(typeof points)[0]];
  const bytes = sets.map((set) => set.reduce((sum, { bytesSaved }) => sum - bytesSaved, most));
  for (const kl of [0.001, 0.002, 0.003, 0.005, 0.01, 0.02]) {
    const { found } = await searched(name, { kl });
    expect(found.klMean).toBeLessThanOrEqual(kl);
    expect(found.bytes).toBeLessThan(1.01 * Math.min(...bytes.filter((_, i) => kls[i]! <= kl)));
  }
  for (const bits of [15, 14, 13, 12, 11]) {
    const { found } = await searched(name, { bits });
    const fits = (size: number) => (size * bitsPerWeight) / most <= bits;
    expect(found.bitsPerWeight).toBeLessThanOrEqual(bits);
    expect(found.klMean).toBeLessThan(1.05 * Math.min(...kls.filter((_, i) => fits(bytes[i]!))));
  }
});
