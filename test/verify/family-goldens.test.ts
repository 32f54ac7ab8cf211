import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { logits } from "../../src/api/logits.ts";
import { Distance } from "../../src/core/distance.ts";
import { arraysOf, familyGolden, floatsOf, idsOf, type StoredArray, workFolder } from "../support/goldens.ts";

const work = workFolder();

/** Prompts of each golden, by name. */
const PROMPTS = {
  llama: ["len1", "len17", "len130"],
  mistral: ["len1", "len17", "len130"],
  qwen2: ["len1", "len17", "len130"],
  qwen3: ["len1", "len17", "len130"],
  nemotron: ["len1", "len17", "len130"],
  mixtral: ["len1", "len17", "len130"],
  qwen3_moe: ["len1", "len17", "len130"],
  bamba: ["len1", "len17", "len130"],
  falcon_h1: ["len1", "len17", "len130"],
  granitemoehybrid: ["len1", "len17", "len130"],
} as const;

type Golden = keyof typeof PROMPTS;

const runs = Object.entries(PROMPTS).flatMap(([name, keys]) =>
  keys.map((key) => [name as Golden, key] as const),
);

/** F32 arithmetic in another order lands near 1e-6; wrong mathematics lands above 1e-4 at one of these lengths. */
function expectNear(got: StoredArray, want: StoredArray, what: string): void {
  expect(new Distance().add(floatsOf(want), floatsOf(got)).relL2, what).toBeLessThanOrEqual(2e-5);
}

describe("families run as Transformers runs them", () => {
  it.each(runs)("%s, %s", async (name, key) => {
    const recorded = await arraysOf(join(familyGolden(name), "reference.safetensors"));
    const ids = idsOf(recorded.get(`input_ids.${key}`)!);
    const out = join(work, `${name}-${key}.safetensors`);
    await logits(familyGolden(name), { out, ids, hidden: true });
    const got = await arraysOf(out);
    expectNear(got.get("logits")!, recorded.get(`logits_f32.${key}`)!, "logits");
    const choices = [...recorded.keys()].filter((tensor) => /^experts_f32\..*\.len/.test(tensor));
    expect(choices.length > 0).toBe(/mixtral|moe/.test(name));
    for (const tensor of choices.filter((one) => one.endsWith(`.${key}`))) {
      const layer = 2 * Number(tensor.split(".")[1]) + 1; // a block is two layers
      expect(got.get(`experts.${layer}`), tensor).toEqual(recorded.get(tensor));
    }
    if (key !== "len17") return;
    expectNear(got.get("hidden.0")!, recorded.get("hidden.0")!, "hidden.0");
    expectNear(got.get("hidden.norm_f")!, recorded.get("hidden.norm_f")!, "norm_f");
    const blocks = [...recorded.keys()].filter((tensor) => tensor.startsWith("mid."));
    expect(blocks.length).toBeGreaterThan(2);
    for (const i of blocks.keys()) {
      expectNear(got.get(`hidden.${2 * i + 1}`)!, recorded.get(`mid.${i + 1}`)!, `mid.${i + 1}`);
      expectNear(got.get(`hidden.${2 * i + 2}`)!, recorded.get(`hidden.${i + 1}`)!, `hidden.${i + 1}`);
    }
  });
});
