import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { logits } from "../../src/api/logits.ts";
import { Distance } from "../../src/core/distance.ts";
import { arraysOf, floatsOf, golden, idsOf, workFolder } from "../support/goldens.ts";

const work = workFolder();
/** tiny-t5 holds tiny's weights under the other config style; its reference is tiny's. */
const REFERENCES = {
  tiny: "tiny",
  "tiny-t5": "tiny",
  sharded: "sharded",
  moe: "moe",
  "latent-moe": "latent-moe",
  trained: "trained",
} as const;

/** F32 arithmetic in another order lands near 1e-6; wrong mathematics lands above 1e-4 at one of these lengths. */
function expectNear(got: Float32Array, want: Float32Array): void {
  expect(got.length).toBe(want.length);
  const distance = new Distance().add(want, got);
  expect(distance.relL2).toBeLessThanOrEqual(2e-5);
  expect(distance.maxAbs).toBeLessThanOrEqual(1e-3);
}

describe.each(Object.entries(REFERENCES))("%s runs as Transformers runs it", (name, reference) => {
  it.each(["len1", "len17", "len130"])("%s", async (key) => {
    const recorded = await arraysOf(join(golden(reference), "reference.safetensors"));
    const out = join(work, `${name}-${key}.safetensors`);
    const ids = idsOf(recorded.get(`input_ids.${key}`)!);
    const report = await logits(golden(name), { out, ids, hidden: true });
    expect(report).toMatchObject({ backend: "wasm", tokens: ids.length, vocab: 512, out });
    const got = await arraysOf(out);
    expectNear(floatsOf(got.get("logits")!), floatsOf(recorded.get(`logits_f32.${key}`)!));
    const choices = [...recorded.keys()].filter((tensor) => /^experts_f32\..*\.len/.test(tensor));
    expect(choices.length > 0).toBe(name.includes("moe"));
    for (const tensor of choices.filter((one) => one.endsWith(`.${key}`))) {
      const layer = tensor.split(".")[1];
      expect(got.get(`experts.${layer}`), tensor).toEqual(recorded.get(tensor));
    }
    if (key !== "len17") return;
    const hidden = [...recorded.keys()].filter((tensor) => tensor.startsWith("hidden."));
    expect(hidden.length).toBeGreaterThan(8);
    for (const tensor of hidden) expectNear(floatsOf(got.get(tensor)!), floatsOf(recorded.get(tensor)!));
  });
});

it("clamping Δ at time_step_min, as Transformers' CPU path does, would show", async () => {
  const recorded = await arraysOf(join(golden("sharded"), "reference.safetensors"));
  const right = floatsOf(recorded.get("logits_f32.len130")!);
  const clamped = floatsOf(recorded.get("logits_f32_dtmin.len130")!);
  expect(new Distance().add(right, clamped).relL2).toBeGreaterThan(1e-3);
});

it("the logits are the same bits for any number of threads and any memory", async () => {
  const ids = Array.from({ length: 33 }, (_, i) => (i * 37) % 512);
  const runs = [{ threads: 1 }, { threads: 3 }, { threads: 2, memoryBytes: 128 * 1024 * 1024 }];
  const bytes: string[] = [];
  for (const [i, options] of runs.entries()) {
    const out = join(work, `threads-${i}.safetensors`);
    await logits(golden("sharded"), { out, ids, ...options });
    bytes.push(Buffer.from((await arraysOf(out)).get("logits")!.bytes).toString("base64"));
  }
  expect(new Set(bytes).size).toBe(1);
});
