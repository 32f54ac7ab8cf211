/** A product and its observer use the same band: an error of one is thrown when both have ended. */
import { setTimeout as wait } from "node:timers/promises";
import { expect, it } from "vitest";
import type { Backend, Region } from "../../../kernels/kernel.ts";
import { type BandObserver, Multiplier } from "../../../src/inference/products/multiplier.ts";
import type { TensorLookup, TensorUse } from "../../../src/inference/tensor-lookup.ts";
import type { BandData, Weights } from "../../../src/inference/weight-bands.ts";

const region = {} as Region;
const part: TensorUse = {
  tensor: { name: "w", dtype: "F32", shape: [2, 3], pieces: [] },
  outputs: [{ to: "y", at: 0, from: 0, count: 2 }],
  inputOffset: 0,
};
const version = () => ({ region, dtype: "F32", scale: 1, areValues: false });
const band = { lo: 0, hi: 2, version } as unknown as BandData;

/** Multiplies one band. @returns the end of the stage */
async function multiply(product: () => Promise<void>, observe: BandObserver): Promise<void> {
  const multiplier = new Multiplier({
    backend: { run: product } as unknown as Backend,
    stored: { parts: () => [part] } as unknown as TensorLookup,
    weights: {
      eachBand: async ([task]: never[], _: unknown, __: unknown, use: (...of: unknown[]) => Promise<void>) =>
        await use(task, band),
    } as unknown as Weights,
    ...{ widths: { x: 3, y: 2 }, tokens: 1, logitsFactor: 1 },
  });
  const set = {
    inputs: new Map([["x", region]]),
    outputs: new Map([["y", region]]),
    weights: "stored",
  } as const;
  await multiplier.run({ op: "linear", from: "x", to: ["y"] }, { prefix: "", uses: [] }, [set], observe);
}

it.each([
  ["the product", "product"],
  ["the observer", "observer"],
])("%s fails", async (_, failing) => {
  const ended: string[] = [];
  const end = async (name: string) => {
    if (name === failing) throw new Error(`${name} failed`);
    await wait(20);
    ended.push(name);
  };
  const stage = multiply(
    () => end("product"),
    () => end("observer"),
  );
  await expect(stage).rejects.toThrow(`${failing} failed`);
  expect(ended).toEqual(["product", "observer"].filter((name) => name !== failing));
});
