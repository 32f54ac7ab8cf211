/** A golden on the GPU of the tests: its logits as Transformers recorded them, and every tensor as WASM computes it. */
import { basename, join } from "node:path";
import { expect } from "vitest";
import { logits } from "../../../src/api/logits.ts";
import { Distance } from "../../../src/core/distance.ts";
import { arraysOf, floatsOf, idsOf } from "../goldens.ts";

/**
 * @param folder    of a golden
 * @param reference the golden with its recording
 * @param key       of a prompt in the recording
 */
export async function expectAsRecorded(
  folder: string,
  reference: string,
  key: string,
  work: string,
): Promise<void> {
  const recorded = await arraysOf(join(reference, "reference.safetensors"));
  const ids = idsOf(recorded.get(`input_ids.${key}`)!);
  const run = async (backend: "webgpu" | "wasm") => {
    const out = join(work, `${basename(folder)}-${key}-${backend}.safetensors`);
    const report = await logits(folder, { out, ids, backend, hidden: true });
    expect(report.backend).toBe(backend);
    return await arraysOf(out);
  };
  const [gpu, wasm] = [await run("webgpu"), await run("wasm")];
  expectNear(floatsOf(gpu.get("logits")!), floatsOf(recorded.get(`logits_f32.${key}`)!));
  for (const [tensor, array] of gpu) {
    if (array.dtype === "F32") expectNear(floatsOf(array), floatsOf(wasm.get(tensor)!));
    else expect(array, tensor).toEqual(wasm.get(tensor)); // ids, and the experts that were chosen
  }
}

function expectNear(got: Float32Array, want: Float32Array): void {
  expect(got.length).toBe(want.length);
  expect(new Distance().add(want, got).relL2).toBeLessThanOrEqual(2e-5);
}
