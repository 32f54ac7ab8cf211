import { describe, expect, it } from "vitest";
import { blockElements, DECODED_BLOCKS } from "../../src/core/dtype.ts";
import { widen } from "../../src/core/float.ts";
import { blockBound, firstFarBlock } from "../../src/workers/block-bound.ts";
import { arraysOf, floatsOf, ggufGolden } from "../support/goldens.ts";

const rows = await arraysOf(ggufGolden("blocks.safetensors"));
const weights = floatsOf(rows.get("input")!);

/** Sums of (w - v)^2 and of w^2 of each block. */
function sumsOf(values: Float32Array, block: number, source: Float32Array = weights): Float64Array {
  const sums = new Float64Array((2 * values.length) / block);
  values.forEach((value, i) => {
    const at = 2 * Math.floor(i / block);
    sums[at]! += (source[i]! - value) ** 2;
    sums[at + 1]! += source[i]! ** 2;
  });
  return sums;
}

describe.each(DECODED_BLOCKS)("%s", (dtype) => {
  const values = widen(dtype, rows.get(dtype)!.bytes);
  const block = blockElements(dtype);

  it("every block that ggml made of hard rows is near enough", () => {
    expect(firstFarBlock(dtype, sumsOf(values, block))).toBe(-1);
  });

  it("a block of zeros, of another sign, of twice the scale or of other weights is too far", () => {
    const [first, second] = [values.slice(0, block), values.slice(block, 2 * block)]; // of normally distributed rows
    const source = weights.slice(0, block);
    const wrong = [first.map(() => 0), first.map((x) => -x), first.map((x) => 2 * x), second];
    for (const found of wrong) expect(firstFarBlock(dtype, sumsOf(found, block, source))).toBe(0);
    expect(firstFarBlock(dtype, sumsOf(first.with(3, Number.NaN), block, source))).toBe(0);
  });

  it("is below the error of zeros", () => {
    expect(blockBound(dtype)).toBeLessThan(1);
  });
});
