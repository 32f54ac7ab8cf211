/** Which runs advance together, and that only the noise run has the residual stream of a run in BF16. */
import { expect, it } from "vitest";
import { createWasmBackend } from "../../kernels/backend/wasm.ts";
import { Streams } from "../../src/inference/activations.ts";
import { LockstepRuns } from "../../src/verify/lockstep-runs.ts";

/** between two numbers of BF16 */
const FINE = 1 + 2 ** -10;

it.each([
  ["of an exact copy", false, [[FINE], [FINE]]],
  ["of a recast", true, [[FINE], [FINE], [FINE], [1]]],
])("the residual streams %s after a sum, saved and restored", async (_, recast, expected) => {
  await using backend = await createWasmBackend({ threads: 1, memoryBytes: 2 ** 20 });
  const runs = new LockstepRuns(recast, () => new Streams(backend, () => 1));
  runs.make(["residual", "out"]);
  for (const run of runs.all) {
    await run.put("residual", Float32Array.of(1));
    await run.put("out", Float32Array.of(2 ** -10));
  }
  await runs.addResidual();
  const saved = await runs.residuals();
  expect(saved.map((values) => [...values])).toEqual(expected);
  runs.releaseAll();
  await runs.putResiduals(saved);
  expect(await runs.residuals()).toEqual(saved);
  runs.releaseAll();
});
