import { describe, expect, it } from "vitest";
import type { Tensor } from "../../../src/core/checkpoint.ts";
import { type MatmulTask, matmulTask, matmulTasksOfRows } from "../../../src/inference/products/tasks.ts";

const matrix = (name: string): Tensor => ({ name, dtype: "BF16", shape: [40, 8], pieces: [] });
/** Two streams, the second out of order. */
const fused = matmulTask({
  tensor: matrix("fused"),
  outputs: [
    { to: "z", at: 3, from: 0, count: 16 },
    { to: "x", at: 0, from: 28, count: 12 },
    { to: "x", at: 12, from: 16, count: 12 },
  ],
  inputOffset: 0,
});
const single = matmulTask({
  tensor: matrix("single"),
  outputs: [{ to: "y", at: 0, from: 0, count: 40 }],
  inputOffset: 0,
});

/** Which row of which tensor makes which element. */
const elementsOf = (tasks: readonly MatmulTask[]) =>
  tasks
    .flatMap(({ tensor, outputs, lo, hi }) =>
      outputs.flatMap(({ to, at, from, count }) =>
        Array.from({ length: count }, (_, i) => {
          expect(from + i >= lo && from + i < hi).toBe(true);
          return { element: `${to} ${at + i}`, of: tensor.name, row: from + i };
        }),
      ),
    )
    .sort((a, b) => (a.element < b.element ? -1 : 1));

describe("products of some rows", () => {
  it.each([
    [{ fused: [{ lo: 0, hi: 40 }], single: [{ lo: 0, hi: 40 }] }],
    [{ fused: [{ lo: 5, hi: 6 }] }],
    [{ fused: [{ lo: 14, hi: 30 }], single: [] }],
    [
      {
        fused: [
          { lo: 2, hi: 4 },
          { lo: 39, hi: 40 },
        ],
        single: [{ lo: 38, hi: 50 }],
      },
    ],
  ])("%j make the elements that these rows make among all", (rows) => {
    const wanted = new Map(Object.entries(rows));
    const isWanted = ({ of, row }: { of: string; row: number }) =>
      (wanted.get(of) ?? []).some(({ lo, hi }) => row >= lo && row < hi);
    const all = [fused, single];
    expect(elementsOf(matmulTasksOfRows(all, wanted))).toEqual(elementsOf(all).filter(isWanted));
  });

  it("that are stored in pairs, or whose results are added, are those of all rows", () => {
    const rows = new Map([["single", [{ lo: 0, hi: 1 }]]]);
    for (const all of [
      [{ ...single, pairsIn: { width: 8, paired: 8 } }],
      [single, { ...single, inputOffset: 8 }],
    ])
      expect(matmulTasksOfRows(all, rows)).toEqual(all);
  });
});
