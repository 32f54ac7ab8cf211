/** The GPU forms of what is kept, on the adapter that the tests have. */
import { afterAll, it } from "vitest";
import { gpuBackend } from "../support/kernels/software-gpu.ts";
import { expectSteps } from "../support/small-model.ts";

const backend = await gpuBackend();
afterAll(() => backend[Symbol.asyncDispose]());

it.each([
  ["tiny", "len17", [1, 5, 2, 1, 8]],
  ["moe", "len17", [1, 5, 2, 1, 8]],
  ["tiny", "len130", [1, 128, 1]], // a long part goes by chunks, from the state of the one before
] as const)("%s, %s: step by step as at once", async (name, key, lengths) => {
  await expectSteps(name, backend, key, lengths);
});
