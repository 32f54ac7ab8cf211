/** `runLayers` shows the inputs of stages without changing the result. */
import { afterAll, expect, it } from "vitest";
import { loadModelWithScales } from "../../src/checkpoint/load.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import { Sources } from "../../src/core/read.ts";
import { runLayers } from "../../src/inference/layers.ts";
import { createRunner } from "../../src/inference/model-runner.ts";
import { Rounder } from "../../src/inference/rounding.ts";
import { golden } from "../support/goldens.ts";
import { wasm } from "../support/small-model.ts";

const backend = await wasm();
afterAll(() => backend[Symbol.asyncDispose]());

type Hooks = Parameters<typeof runLayers>[2];

it("an observer reads the input of every linear stage and changes no bit", async () => {
  const ids = [5, 9, 77];
  const model = await loadModelWithScales(await openCheckpoint(golden("tiny")), {});
  const widths = model.family.forward.streams(model.dims);
  await using sources = new Sources(model.checkpoint.store);
  const rounder = await Rounder.create();
  const residualWith = async (hooks: Hooks) => {
    const common = { backend, sources, rounder, roundings: new Map(), bandBytes: 1 << 20, signal: undefined };
    const runner = createRunner(model, { ...common, tokens: ids.length, advance: () => {} });
    const streams = await runLayers({ model, runner, backend, signal: undefined }, ids, hooks);
    const residual = (await streams.view("residual")).slice();
    streams.releaseAll();
    runner.close();
    return residual;
  };
  const seen = new Set<number>();
  const observed = await residualWith({
    async observe(stage, { index }, view) {
      if (stage.op !== "linear") return;
      seen.add(index);
      const input = await view(stage.from);
      expect(input).toHaveLength(ids.length * widths[stage.from]!);
      expect(input.every(Number.isFinite)).toBe(true);
      expect(input.some((value) => value !== 0)).toBe(true);
    },
  });
  expect(seen.size).toBe(model.layers.filter(({ stack }) => stack === "main").length);
  expect(observed).toEqual(await residualWith({}));
});
