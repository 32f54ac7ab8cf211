/** Step by step a model says what it says at once: held to the logits that Transformers recorded of whole prompts. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { Backend } from "../../kernels/kernel.ts";
import { Distance } from "../../src/core/distance.ts";
import { FAMILIES, golden } from "../support/goldens.ts";
import { expectSteps, ones, readIn, recorded, wasm } from "../support/small-model.ts";

const backend = await wasm();
afterAll(() => backend[Symbol.asyncDispose]());

/** More of them are in test/long/decoder.test.ts. */
describe.each(["tiny", "sharded", "moe", "latent-moe", ...FAMILIES])("%s", (name) => {
  it.each([
    ["7 + 10", "len17", [7, 10]],
    ["130 in runs across the borders of chunks", "len130", [3, 61, 1, 63, 1, 1]],
  ] as const)("%s", async (_, key, lengths) => {
    await expectSteps(name, backend, key, lengths);
  });
});

it("however a prompt is cut, WASM gives the same bits", async () => {
  const { ids } = await recorded("tiny", "len17");
  const last = async (lengths: readonly number[]) => (await readIn("tiny", backend, ids, lengths)).at(-1)!;
  const whole = await last([17]);
  for (const lengths of [ones(17), [7, 10], [2, 13, 2]]) expect(await last(lengths)).toEqual(whole);
});

it("what is kept of earlier tokens matters", async () => {
  const { ids } = await recorded("tiny", "len17");
  const forgot = await readIn("tiny", backend, ids.slice(8), [9]);
  const { relL2 } = new Distance().add(forgot[0]!, (await readIn("tiny", backend, ids, [8, 9]))[1]!);
  expect(relL2).toBeGreaterThan(1e-3);
});

describe("bytes that are kept between two readings", () => {
  const config = JSON.parse(readFileSync(join(golden("tiny"), "config.json"), "utf8"));
  const layers = (letter: string) =>
    [...config.hybrid_override_pattern].filter((one) => one === letter).length;
  const inner = config.mamba_num_heads * config.mamba_head_dim;
  const convolved = inner + 2 * config.n_groups * config.ssm_state_size;
  const state = inner * config.ssm_state_size;
  const fixed = 4 * layers("M") * (convolved * (config.conv_kernel - 1) + state);
  const aToken = 4 * layers("*") * 2 * config.num_key_value_heads * config.head_dim;

  it.each([6, 60])(
    "of %d tokens at most: the same after each, and only keys and values by the token",
    async (most) => {
      const live = counting(backend);
      const ids = Array.from({ length: most }, (_, i) => i);
      const after: number[] = [];
      await readIn("tiny", live.backend, ids, [1, 1, 3, most - 5], () => after.push(live.bytes()));
      expect(new Set(after)).toEqual(new Set([fixed + most * aToken]));
      expect(live.bytes()).toBe(0);
    },
  );
});

/** The backend, and the bytes of its memory that someone has. */
function counting(backend: Backend): { backend: Backend; bytes: () => number } {
  let bytes = 0;
  const counted: Backend = {
    ...backend,
    allocate(size) {
      bytes += size;
      return backend.allocate(size);
    },
    release(region) {
      bytes -= region.bytes;
      backend.release(region);
    },
  };
  return { backend: counted, bytes: () => bytes };
}
