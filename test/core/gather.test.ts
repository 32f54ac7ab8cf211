/** Bands of short runs: each element is read from its place, in parts whose number of extents is bounded. */
import { expect, it } from "vitest";
import type { Tensor } from "../../src/core/checkpoint.ts";
import { gatherExtents, readElements } from "../../src/core/gather.ts";
import { indexRuns, leaf, movesOf, take, takeMoves } from "../../src/core/mapping/layout.ts";
import { Sources } from "../../src/core/read.ts";
import { memorySource } from "../support/memory-store.ts";

const [rows, columns] = [420, 1000];
const bytes = Uint8Array.from({ length: rows * columns }, (_, i) => (i * 31 + (i >> 8)) & 255);
const tensor: Tensor = {
  name: "w",
  dtype: "U8",
  shape: [rows, columns],
  pieces: [{ file: "f", offset: 0, start: [0, 0], shape: [rows, columns] }],
};
const tensors = new Map([["w", tensor]]);
const even = Array.from({ length: columns / 2 }, (_, i) => 2 * i);
const third = Array.from({ length: rows / 3 }, (_, i) => 3 * i);

/** Every third row of every second column: rows are taken from a leaf whose columns are taken already. */
const source = {
  moves: movesOf(take(leaf("role", [rows, even.length]), 0, third)),
  roles: new Map([
    ["role", takeMoves(movesOf(leaf("w", [rows, columns])), [rows, columns], 1, indexRuns(even))],
  ]),
};
const count = third.length * even.length;

it("rows of columns have a move for each run, and not for each pair of runs", () => {
  expect(source.moves).toHaveLength(third.length);
  expect(source.roles.get("role")).toHaveLength(even.length);
});

it("a band with more extents than are held at a time gives each element once, in its place", {
  timeout: 60_000,
}, async () => {
  expect(gatherExtents(source, { lo: 0, hi: count }, tensors, 1).length).toBeGreaterThan(2 ** 16);
  const held: number[] = [];
  class Counted extends Sources {
    override read(...args: Parameters<Sources["read"]>) {
      held.push(args[0].length);
      return super.read(...args);
    }
  }
  const store = { url: "memory", list: async () => [], open: async () => memorySource("f", bytes) };
  await using sources = new Counted(store);
  for (const band of [
    { lo: 0, hi: count },
    { lo: 64, hi: 3_200 },
  ]) {
    const target = new Uint8Array(band.hi - band.lo).fill(1);
    await readElements(source, band, tensors, 1, sources, target);
    const wanted = third.flatMap((row) => even.map((column) => bytes[row * columns + column]!));
    expect(Buffer.from(target).equals(Buffer.from(wanted.slice(band.lo, band.hi)))).toBe(true);
  }
  expect(Math.max(...held)).toBeLessThanOrEqual(2 ** 16 + 64);
});
