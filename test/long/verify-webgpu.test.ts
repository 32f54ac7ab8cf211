/**
 * The goldens on the GPU of the tests, up to 17 tokens: a software adapter takes its time. The other backend, with an
 * order of additions of its own, is the second witness.
 */
import { join } from "node:path";
import { beforeAll, expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { verify } from "../../src/api/verify.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { testAdapter } from "../support/kernels/software-gpu.ts";
import { metricsWith } from "../support/rungs.ts";
import { expectAsRecorded } from "../support/verify/gpu-golden.ts";

const work = workFolder();
beforeAll(testAdapter);

/** One token and several run other kernels, and so do experts. Each golden with each prompt: test/long/webgpu.test.ts. */
it.each([
  ["tiny", "len17"],
  ["sharded", "len17"],
  ["moe", "len1"],
  ["latent-moe", "len17"],
])("%s runs as Transformers ran it and as WASM runs it, %s", async (name, key) => {
  await expectAsRecorded(golden(name), golden(name), key, work);
});

it("a verification on the GPU names it, and finds a model to be itself, bit for bit", async () => {
  const { name } = await testAdapter();
  const report = await verify(golden("tiny"), golden("tiny"), { backend: "webgpu", tokens: 5 });
  expect(report).toMatchObject({ verdict: "same", backend: "webgpu", device: expect.stringContaining(name) });
});

it.each([
  ["wasm", "webgpu", "tiny", "keep"],
  ["webgpu", "wasm", "tiny", "keep"],
  // other experts than the source's would be chosen
  ["wasm", "webgpu", "latent-moe", "fp8-e4m3"],
] as const)("what %s certified, %s confirms within the bound: %s, %s", async (by, again, name, dtype) => {
  const out = join(work, `certified-${by}-${name}`);
  const recast = dtype === "keep" ? {} : { dtype, recipe: "all-linear" };
  const { verification } = await convert(golden(name), out, { to: "hf", tokens: 9, backend: by, ...recast });
  expect(verification).toMatchObject({ verdict: dtype === "keep" ? "same" : "within", backend: by });
  const report = await verify(out, undefined, { backend: again });
  expect(report).toMatchObject({ verdict: "within", backend: again, firstDivergence: null });
  const metrics = metricsWith(report, "logits", "normsRel");
  console.log(`${name}, ${by} to ${again}: relative L2 ${metrics.relL2}, norms ${metrics.normsRel}`);
  expect(metrics.relL2).toBeGreaterThan(0); // the backends do not add in one order: this is no comparison with itself
  expect(metrics.relL2).toBeLessThan(5e-6);
  expect(metrics.normsRel).toBeLessThan(5e-6);
});
