/** How stored weights are compared with each other in parts. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { createWasmBackend } from "../../kernels/backend/wasm.ts";
import type { Backend } from "../../kernels/kernel.ts";
import type { Tensor } from "../../src/core/checkpoint.ts";
import { Sources } from "../../src/core/read.ts";
import { Weights } from "../../src/inference/weight-bands.ts";
import { memoryStore } from "../support/memory-store.ts";

/** more than two of the parts that are compared at a time */
const COUNT = (1 << 21) + 5;

const vector: Tensor = {
  name: "w",
  dtype: "BF16",
  shape: [2 * COUNT],
  pieces: [{ file: "w", offset: 0, start: [0], shape: [2 * COUNT] }],
};

let backend: Backend;
beforeAll(async () => {
  backend = await createWasmBackend({ threads: 1, memoryBytes: 2 ** 25 });
});
afterAll(() => backend[Symbol.asyncDispose]());

it.each([
  ["equal", null, 0, true],
  ["unlike in the first element", 0, 0x3f80, false],
  ["unlike at the end of a part", (1 << 20) - 1, 0x3f80, false],
  ["unlike in the last element", COUNT - 1, 0x3f80, false],
  ["unlike in the sign of a zero of the last part", COUNT - 1, 0x8000, true],
])("two runs of elements are %s", async (_, at, code, expected) => {
  const words = new Uint16Array(2 * COUNT);
  if (at !== null) words[COUNT + at] = code;
  await using sources = new Sources(memoryStore("memory", new Map([["w", new Uint8Array(words.buffer)]])));
  const weights = new Weights({
    ...{ backend, sources, tensors: new Map([["w", vector]]), scaleOf: new Map(), roundings: new Map() },
    ...{ rounder: { round() {} }, bandBytes: 1024, advance() {}, signal: undefined },
  });
  expect(await weights.alike(vector, 0, vector, COUNT, COUNT)).toBe(expected);
  weights.close();
});
