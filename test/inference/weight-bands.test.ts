/** How stored weights are read in bands and ahead, and compared with each other in parts. */
import { setTimeout as wait } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createWasmBackend } from "../../kernels/backend/wasm.ts";
import type { Backend } from "../../kernels/kernel.ts";
import type { Tensor } from "../../src/core/checkpoint.ts";
import { Sources } from "../../src/core/read.ts";
import { type MatrixRows, Weights } from "../../src/inference/weight-bands.ts";
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

describe("bands", () => {
  const [ROWS, COLUMNS] = [40, 64];
  const BAND_BYTES = 8 * 4 * COLUMNS;
  /** Each byte of a matrix is its number plus one. */
  const matrixOf = (number: number): Tensor => ({
    name: `m${number}`,
    dtype: "F32",
    shape: [ROWS, COLUMNS],
    pieces: [{ file: `m${number}`, offset: 0, start: [0, 0], shape: [ROWS, COLUMNS] }],
  });
  const matrices = [0, 1, 2].map(matrixOf);
  const bytes = 4 * ROWS * COLUMNS;
  const rowsOf = (number: number, lo = 0, hi = ROWS): MatrixRows => ({ tensor: matrices[number]!, lo, hi });

  /** Reads `calls` with `following`. @returns the rows that each call used, and the bytes that were read of each file */
  async function readBands(
    following: readonly (readonly [string, MatrixRows])[],
    calls: readonly (readonly MatrixRows[])[],
    missing?: string,
    buffers?: number,
  ) {
    const files = new Map(matrices.map(({ name }, i) => [name, new Uint8Array(bytes).fill(i + 1)]));
    if (missing !== undefined) files.delete(missing);
    const store = memoryStore("memory", files);
    const read = new Map<string, number>();
    const open = async (path: string) => {
      const source = await store.open(path);
      const readInto = async (target: Uint8Array, offset: number) => {
        read.set(path, (read.get(path) ?? 0) + target.byteLength);
        await source.readInto(target, offset);
      };
      return { ...source, readInto };
    };
    await using sources = new Sources({ ...store, open });
    const weights = new Weights({
      ...{ backend, sources, tensors: new Map(matrices.map((tensor) => [tensor.name, tensor])) },
      ...{ scaleOf: new Map(), roundings: new Map(), rounder: { round() {} }, following: new Map(following) },
      ...{ bandBytes: BAND_BYTES, buffers, advance() {}, signal: undefined },
    });
    const used: string[][] = [];
    const checks: Promise<void>[] = [];
    for (const call of calls) {
      const seen: string[] = [];
      await weights.eachBand(call, true, ["stored"], async ({ tensor }, { lo, hi, stored, keep }) => {
        for (let row = lo; row < hi; row++) seen.push(`${tensor.name} ${row}`);
        const check = async () => {
          await wait(5 * Math.random()); // the next bands must not overwrite this one meanwhile
          const values = await backend.view(stored.region, (hi - lo) * COLUMNS);
          const codes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
          expect(new Set(codes)).toEqual(new Set([matrices.indexOf(tensor) + 1]));
        };
        if (lo % 2 === 0) return await check();
        const kept = check();
        keep(kept);
        checks.push(kept);
      });
      used.push(seen);
    }
    await Promise.all(checks);
    weights.close();
    return { used, read: Object.fromEntries(read) };
  }

  const namesOf = (call: readonly MatrixRows[]) =>
    call.flatMap(({ tensor, lo, hi }) =>
      Array.from({ length: hi - lo }, (_, i) => `${tensor.name} ${lo + i}`),
    );

  it.each([
    ["each matrix alone", [[rowsOf(0)], [rowsOf(1)], [rowsOf(2)]]],
    ["two matrices together", [[rowsOf(0)], [rowsOf(1), rowsOf(2)]]],
  ])("come in order, and each is read once: %s", async (_, calls) => {
    for (const following of [[], [["m0", rowsOf(1)] as const, ["m1", rowsOf(2)] as const]]) {
      for (const buffers of [undefined, 2, 3]) {
        const { used, read } = await readBands(following, calls, undefined, buffers);
        expect(used).toEqual(calls.map(namesOf));
        expect(read).toEqual(Object.fromEntries(matrices.map(({ name }) => [name, bytes])));
      }
    }
  });

  it("of what follows are read before they are asked for: one full band", async () => {
    const { read } = await readBands([["m0", rowsOf(1)]], [[rowsOf(0)], []]);
    expect(read).toEqual({ m0: bytes, m1: BAND_BYTES });
  });

  it("that were read ahead for nothing are dropped, even if they cannot be read", async () => {
    const calls = [[rowsOf(0, 0, 3)], [rowsOf(0, 3)], [rowsOf(2)], [rowsOf(0)], []];
    for (const missing of [undefined, "m1"]) {
      const { used } = await readBands([["m0", rowsOf(1)]], calls, missing);
      expect(used).toEqual(calls.map(namesOf));
    }
  });

  it("that were read ahead with an error give it to the call that uses them", async () => {
    const stopped = readBands([["m0", rowsOf(1)]], [[rowsOf(0)], [rowsOf(1)]], "m1");
    await expect(stopped).rejects.toMatchObject({ code: "NOT_FOUND" });
  });
});
