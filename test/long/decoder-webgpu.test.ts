/** The GPU forms of what is kept, on the adapter that the tests have. */
import { afterAll, expect, it } from "vitest";
import { Distance } from "../../src/core/distance.ts";
import { gpuBackend } from "../support/kernels/software-gpu.ts";
import { readIn, recorded } from "../support/small-model.ts";

const backend = await gpuBackend();
afterAll(() => backend[Symbol.asyncDispose]());

it.each([
  ["tiny", "len17", [1, 5, 2, 1]],
  ["moe", "len17", [1, 5, 2, 1]],
  ["tiny", "len130", [1, 128, 1]], // a long part goes by chunks, from the state of the one before
] as const)("%s, %s: step by step as at once", async (name, key, lengths) => {
  const { ids, after } = await recorded(name, key);
  const runs = await readIn(name, backend, ids, lengths);
  let read = 0;
  for (const [i, length] of lengths.entries()) {
    read += length;
    expect(new Distance().add(after(read), runs[i]!).relL2, `after ${read}`).toBeLessThanOrEqual(2e-5);
  }
});
