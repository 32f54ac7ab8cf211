/** Checkpoints of Megatron's GPTModel that Megatron itself wrote, and their Hugging Face twins, both ways. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { diff } from "../../src/api/diff.ts";
import { inspect } from "../../src/api/inspect.ts";
import { arraysOf, familyGolden, workFolder } from "../support/goldens.ts";

const work = workFolder();

/** Each checkpoint, its twin, and what must be given because no file says it. */
const TWINS = {
  "llama-nemo2": ["llama", {}],
  "llama-mcore-tp2": ["llama", {}],
  "llama-ranks-tp2-pp2": ["llama", {}],
  "qwen2-bridge-tp2": ["qwen2", {}],
  "qwen2-hybrid": ["qwen2", {}],
  "qwen2-ranks-pp2": ["qwen2", { vocabSize: 500 }],
  "nemotron-nemo2-tp2": ["nemotron", {}],
  "qwen3_moe-bridge-ep2": ["qwen3_moe", {}],
} as const;

const tensorsIn = (folder: string) => arraysOf(join(folder, "model.safetensors"));

describe.each(Object.entries(TWINS))("%s", (name, [twin, options]) => {
  it(`becomes ${twin}, byte for byte, and is proved to be the same model`, async () => {
    const folder = join(work, `${name}-hf`);
    const { verification } = await convert(familyGolden(name), folder, { to: "hf", ...options });
    expect(verification).toMatchObject({ verdict: "same" });
    expect(await tensorsIn(folder)).toEqual(await tensorsIn(familyGolden(twin)));
    const { equal } = await diff(familyGolden(twin), folder, { weights: true });
    expect(equal).toBe(true);
  });
});

describe.each([
  ...(["llama", "mistral", "qwen2", "qwen3"] as const).map((name) => [name, "llama"] as const),
  ["nemotron", "nemotron"] as const,
  ...(["mixtral", "qwen3_moe"] as const).map((name) => [name, "mixtral"] as const),
])("%s", (name, family) => {
  const DESTINATIONS = [
    ["nemo2", {}],
    ["bridge", {}],
    ["megatron", { tp: 2, pp: 2 }],
  ] as const;
  it.each(DESTINATIONS)("to %s and back is the same bytes", async (to, ranks) => {
    const [there, back] = [join(work, `${name}-${to}`), join(work, `${name}-${to}-back`)];
    const { verification } = await convert(familyGolden(name), there, { to, ...ranks });
    expect(verification).toMatchObject({ verdict: "same" });
    expect(await inspect(there)).toMatchObject({
      family,
      ranks: { tp: 1, pp: 1, ...ranks },
    });
    await convert(there, back, { to: "hf", verify: "bytes" });
    for (const file of ["model.safetensors", "config.json"])
      expect(readFileSync(join(back, file)).equals(readFileSync(join(familyGolden(name), file))), file).toBe(
        true,
      );
  });
});

it("what Megatron wrote as one tensor of all layers is written so again", async () => {
  const index = (folder: string) => readFileSync(join(folder, ".metadata")).toString("latin1");
  const there = join(work, "llama-nemo2-again");
  await convert(familyGolden("llama"), there, { to: "nemo2", verify: "off" });
  const keys = (text: string) =>
    [...new Set(text.match(/module\.[\w.]+\.(weight|layer_norm_weight)/g))].sort();
  const own = keys(index(join(there, "weights")));
  expect(own).toEqual(keys(index(join(familyGolden("llama-nemo2"), "weights"))));
  expect(own).toContain("module.decoder.layers.mlp.linear_fc1.weight");
});
