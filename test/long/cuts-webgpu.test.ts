/** Cuts on a GPU: the same damage as on WASM, but for rounding. */
import { beforeAll, expect, it } from "vitest";
import { measureCuts } from "../../src/pruning/search/measure.ts";
import { testAdapter } from "../support/kernels/software-gpu.ts";
import { calibration, cutOf, parentModel, recordedScores } from "../support/measured-shapes.ts";

beforeAll(testAdapter);

it("skips layers and silences channels as on WASM", async () => {
  const [model, scores] = [await parentModel(), await recordedScores()];
  const prompts = [calibration[0]!.slice(0, 9), calibration[1]!.slice(0, 7)];
  const cuts = [
    { attention: 3, mamba: 8, mlp: 8, ffn: 128 },
    { attention: 3, mamba: 8, mlp: 8, ffn: 96 },
    { attention: 2, mamba: 7, mlp: 6, ffn: 104 },
  ].map((shape) => cutOf(shape, scores));
  const gpu = await measureCuts(model, cuts, prompts, { backend: "webgpu" });
  const wasm = await measureCuts(model, cuts, prompts, { backend: "wasm", threads: 1 });
  expect([gpu.backend, gpu.readings]).toEqual(["webgpu", 1]);
  expect(gpu.damages[0]).toMatchObject({ klMean: 0, top1: 1 });
  for (const i of [1, 2]) {
    const [a, b] = [gpu.damages[i]!, wasm.damages[i]!];
    expect(Math.abs(a.klMean / b.klMean - 1)).toBeLessThan(1e-3);
    expect(Math.abs(a.nllPruned / b.nllPruned - 1)).toBeLessThan(1e-4);
    expect(a.top1).toBe(b.top1);
  }
});
