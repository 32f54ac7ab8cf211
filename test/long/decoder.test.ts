/** Step by step a model says what it says at once, in more steps than test/inference/decoder.test.ts has. */
import { afterAll, describe, it } from "vitest";
import { FAMILIES } from "../support/goldens.ts";
import { expectSteps, ones, wasm } from "../support/small-model.ts";

const backend = await wasm();
afterAll(() => backend[Symbol.asyncDispose]());

describe.each(["tiny", "sharded", "moe", "latent-moe", ...FAMILIES])("%s", (name) => {
  it.each([
    ["one by one", "len17", ones(17)],
    ["1 + 16", "len17", [1, 16]],
    ["2 + 15", "len17", [2, 15]],
    ["16 + 1", "len17", [16, 1]],
    ["130 as 129 + 1", "len130", [129, 1]],
    ["130, one by one from the start of the second chunk", "len130", [64, ...ones(66)]],
  ] as const)("%s", async (_, key, lengths) => {
    await expectSteps(name, backend, key, lengths);
  });
});
