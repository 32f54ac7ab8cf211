/**
 * The goldens on the GPU of the tests, up to 17 tokens: a software adapter takes its time. The other backend, with an
 * order of additions of its own, is the second witness.
 */
import { join } from "node:path";
import { beforeAll, expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { logits } from "../../src/api/logits.ts";
import { verify } from "../../src/api/verify.ts";
import { Distance } from "../../src/core/distance.ts";
import { arraysOf, floatsOf, golden, idsOf, workFolder } from "../support/goldens.ts";
import { testAdapter } from "../support/kernels/software-gpu.ts";
import { metricsWith } from "../support/rungs.ts";

const work = workFolder();
beforeAll(testAdapter);

function expectNear(got: Float32Array, want: Float32Array): void {
  expect(got.length).toBe(want.length);
  expect(new Distance().add(want, got).relL2).toBeLessThanOrEqual(2e-5);
}

/** tiny-t5 holds tiny's weights under the other config style; its reference is tiny's. */
it.each([
  ["tiny", "tiny", "len1"],
  ["tiny", "tiny", "len17"],
  ["tiny-t5", "tiny", "len17"],
  ["sharded", "sharded", "len17"],
  ["moe", "moe", "len1"],
  ["moe", "moe", "len17"],
  ["latent-moe", "latent-moe", "len17"],
])("%s runs as Transformers ran %s and as WASM runs it, %s", async (name, reference, key) => {
  const recorded = await arraysOf(join(golden(reference), "reference.safetensors"));
  const ids = idsOf(recorded.get(`input_ids.${key}`)!);
  const run = async (backend: "webgpu" | "wasm") => {
    const out = join(work, `${name}-${key}-${backend}.safetensors`);
    const report = await logits(golden(name), { out, ids, backend, hidden: true });
    expect(report.backend).toBe(backend);
    return await arraysOf(out);
  };
  const [gpu, wasm] = [await run("webgpu"), await run("wasm")];
  expectNear(floatsOf(gpu.get("logits")!), floatsOf(recorded.get(`logits_f32.${key}`)!));
  for (const [tensor, array] of gpu) {
    if (array.dtype === "F32") expectNear(floatsOf(array), floatsOf(wasm.get(tensor)!));
    else expect(array, tensor).toEqual(wasm.get(tensor)); // ids, and the experts that were chosen
  }
});

it("a verification on the GPU names it, and finds a model to be itself, bit for bit", async () => {
  const { name } = await testAdapter();
  const report = await verify(golden("tiny"), golden("tiny"), { backend: "webgpu", tokens: 5 });
  expect(report).toMatchObject({ verdict: "same", backend: "webgpu", device: expect.stringContaining(name) });
});

it.each([
  ["wasm", "webgpu", "sharded", "keep"],
  ["webgpu", "wasm", "sharded", "keep"],
  // other experts than the source's would be chosen
  ["wasm", "webgpu", "latent-moe", "fp8-e4m3"],
] as const)("what %s certified, %s confirms within the bound: %s, %s", async (by, again, name, dtype) => {
  const out = join(work, `certified-${by}-${name}`);
  const recast = dtype === "keep" ? {} : { dtype, recipe: "all-linear" };
  const { verification } = await convert(golden(name), out, { to: "hf", tokens: 17, backend: by, ...recast });
  expect(verification).toMatchObject({ verdict: dtype === "keep" ? "same" : "within", backend: by });
  const report = await verify(out, undefined, { backend: again });
  expect(report).toMatchObject({ verdict: "within", backend: again, firstDivergence: null });
  const metrics = metricsWith(report, "logits", "normsRel");
  console.log(`${name}, ${by} to ${again}: relative L2 ${metrics.relL2}, norms ${metrics.normsRel}`);
  expect(metrics.relL2).toBeGreaterThan(0); // the backends do not add in one order: this is no comparison with itself
  expect(metrics.relL2).toBeLessThan(5e-6);
  expect(metrics.normsRel).toBeLessThan(5e-6);
});
