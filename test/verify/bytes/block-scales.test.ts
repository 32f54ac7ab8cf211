/** Scales of blocks that this version writes, held to the largest magnitude of each block in whatever bands it comes. */
import { describe, expect, it } from "vitest";
import { exponentOf } from "../../../src/cast/blocks.ts";
import { scaleOf } from "../../../src/cast/cast.ts";
import { splitMix64 } from "../../../src/core/random.ts";
import { BlockScaleCheck } from "../../../src/verify/bytes/block-scales.ts";
import { type BlockGrid, blockMaxima } from "../../../src/workers/block-maxima.ts";

const [ROWS, COLUMNS] = [37, 72];
const next = splitMix64(5);
const weights = Float32Array.from({ length: ROWS * COLUMNS }, () => Number(next() >> 11n) / 2 ** 53 - 0.5);
weights.fill(0, 0, 32); // a block of zeros

const GRIDS = { row: [1, COLUMNS], block: [16, 32], mx: [1, 32] } as const;

function amaxOf([height, width]: readonly [number, number], row: number, column: number): number {
  let amax = 0;
  for (let r = row - (row % height); r < Math.min(ROWS, row - (row % height) + height); r++) {
    const start = column - (column % width);
    for (let c = start; c < Math.min(COLUMNS, start + width); c++)
      amax = Math.max(amax, Math.abs(weights[r * COLUMNS + c]!));
  }
  return amax;
}

/** The check of all elements in bands of `step`, under the right scales, of which one may be changed. */
function checked(
  kind: keyof typeof GRIDS,
  step: number,
  change?: { at: number; factor: number },
): string | null {
  const block = GRIDS[kind];
  const isExponent = kind === "mx";
  const scales = weights.map((_, i) => {
    const amax = amaxOf(block, Math.floor(i / COLUMNS), i % COLUMNS);
    return isExponent ? 2 ** (exponentOf(amax) - 127) : scaleOf(amax, "F8_E4M3");
  });
  if (change !== undefined) {
    const [height, width] = block;
    const blockOf = (i: number) =>
      `${Math.floor(Math.floor(i / COLUMNS) / height)} ${Math.floor((i % COLUMNS) / width)}`;
    const changed = blockOf(change.at);
    for (let i = 0; i < scales.length; i++)
      if (blockOf(i) === changed) scales[i] = scales[i]! * change.factor;
  }
  const check = new BlockScaleCheck(isExponent);
  const grid: BlockGrid = { columns: COLUMNS, block };
  for (let lo = 0; lo < weights.length; lo += step) {
    check.add(blockMaxima(weights.subarray(lo, lo + step), scales.subarray(lo, lo + step), lo, grid));
  }
  return check.finish();
}

describe.each(["row", "block", "mx"] as const)("scales of %s", (kind) => {
  it.each([1, 7, 64, COLUMNS, 1000, 5000])("are right, in bands of %i elements", (step) => {
    expect(checked(kind, step)).toBeNull();
  });

  it.each([0, 40, 700, ROWS * COLUMNS - 1])("a wrong one is found, at element %i", (at) => {
    for (const step of [7, 1000]) {
      expect(checked(kind, step, { at, factor: 2 })).toMatch(/the scale of block \d+, \d+ is .*; it must be/);
      expect(checked(kind, step, { at, factor: 0.5 })).not.toBeNull();
    }
  });

  it("one unit in the last place is wrong", () => {
    expect(checked(kind, 64, { at: 700, factor: 1 + 2 ** -22 })).not.toBeNull();
  });
});
