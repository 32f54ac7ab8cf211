/** What a pass shows of the inputs of matrices, on each backend, beside what Transformers recorded. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { Backend } from "../../kernels/kernel.ts";
import { loadModelWithScales } from "../../src/checkpoint/load.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import { runForwardPass } from "../../src/inference/forward-pass.ts";
import { arraysOf, golden, idsOf } from "../support/goldens.ts";
import { gpuBackend } from "../support/kernels/software-gpu.ts";
import { wasm } from "../support/small-model.ts";

type Amax = Readonly<Record<string, number>>;
const recorded: Readonly<
  Record<string, { readonly len17: { readonly inputs: Amax; readonly cached: Amax } }>
> = JSON.parse(readFileSync(golden("../calibration/activations.json"), "utf8"));
const backends = await Promise.all([wasm(), gpuBackend()]);
afterAll(() => Promise.all(backends.map((backend) => backend[Symbol.asyncDispose]())));

const amaxOf = (values: Float32Array) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

/** The largest magnitudes by the name of a weight, as in the recording. */
async function observedBy(backend: Backend, name: string) {
  const model = await loadModelWithScales(await openCheckpoint(golden(name)), {});
  const prompts = await arraysOf(join(golden(name), "reference.safetensors"));
  const [inputs, cached]: [Record<string, number>, Record<string, number>] = [{}, {}];
  await runForwardPass(
    model,
    idsOf(prompts.get("input_ids.len17")!),
    backend,
    {},
    {
      observer: {
        input({ tensors, values }) {
          for (const tensor of tensors) inputs[tensor] = amaxOf(values);
        },
        cached({ layer, stream, values }) {
          cached[`backbone.layers.${layer.index}.mixer.${stream}_proj.weight`] = amaxOf(values);
        },
      },
    },
  );
  return { inputs, cached };
}

describe.each(backends)("on $id", (backend) => {
  it.each(["tiny", "moe"])("%s", async (name) => {
    const observed = await observedBy(backend, name);
    for (const part of ["inputs", "cached"] as const) {
      const theirs = recorded[name]!.len17[part];
      expect(Object.keys(observed[part]).sort()).toEqual(Object.keys(theirs));
      for (const [weight, amax] of Object.entries(theirs))
        expect(Math.abs(observed[part][weight]! / amax - 1), weight).toBeLessThan(1e-4);
    }
  });
});
