import { describe, expect, it } from "vitest";
import type { Fnuz } from "../../src/core/dtype.ts";
import { encode, tableOf } from "../../src/core/float.ts";
import { splitMix64 } from "../../src/core/random.ts";
import { codeCheck } from "../../src/workers/code-bound.ts";

const E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6];
const codesOf = (dtype: "F8_E4M3" | "F8_E5M2" | Fnuz) =>
  [...tableOf(dtype).slice(0, 128)].filter((value) => Number.isFinite(value));
const DTYPES = ["F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F4"] as const;
const gridOf = (dtype: (typeof DTYPES)[number]) => (dtype === "F4" ? E2M1 : codesOf(dtype));
const SCALES = [1, 0.0078125, 0.00123456, 3.4e-5].map(Math.fround);

/** Weights all over the range of the codes, and some beyond it. */
function weightsFor(grid: readonly number[]): readonly number[] {
  const next = splitMix64(7);
  const random = () => Number(next() >> 11n) / 2 ** 53;
  return Array.from({ length: 4000 }, (_, i) => {
    const [at, sign] = [Math.floor(random() * grid.length), i % 2 === 0 ? 1 : -1];
    const [low, high] = [grid[at]!, grid[at + 1] ?? grid[at]! * 1.05];
    return sign * (low + random() * (high - low));
  });
}

describe.each(DTYPES)("codes of %s", (dtype) => {
  const check = codeCheck(dtype);
  const grid = gridOf(dtype);

  /** Weights with the distances of all codes, and the value of a code of the weight's sign. */
  function* weightsWithCodes() {
    for (const scale of SCALES) {
      for (const exact of weightsFor(grid)) {
        const weight = Math.fround(exact * scale);
        const distances = grid.map((code) => Math.abs(Math.abs(weight) / scale - code));
        const best = distances.indexOf(Math.min(...distances));
        const value = (at: number) => Math.fround(Math.sign(weight) * grid[at]! * scale);
        yield { scale, weight, distances, best, value };
      }
    }
  }

  it("the nearest code is nearest, and its neighbours are not", () => {
    for (const { scale, weight, distances, best, value } of weightsWithCodes()) {
      expect(check.isNearest(weight, value(best), scale)).toBe(true);
      expect(check.isWithin(weight, value(best), scale)).toBe(true);
      for (const at of [best - 1, best + 1]) {
        const isTie = Math.abs((distances[at] ?? 0) - distances[best]!) < 1e-5 * grid[best]!;
        if (grid[at] !== undefined && !isTie) expect(check.isNearest(weight, value(at), scale)).toBe(false);
      }
    }
  });

  it("a code two steps away is beyond the bound, and so are a wrong sign and NaN", () => {
    for (const { scale, weight, best, value } of weightsWithCodes()) {
      for (const at of [best - 2, best + 2]) {
        if (grid[at] !== undefined) expect(check.isWithin(weight, value(at), scale)).toBe(false);
      }
      if (best > 2) expect(check.isWithin(weight, -value(best), scale)).toBe(false);
      expect(check.isWithin(weight, NaN, scale)).toBe(false);
    }
  });
});

it("a power of two whose product was rounded down is still a power of two", () => {
  const check = codeCheck("F8_E4M3");
  const next = splitMix64(1);
  for (let i = 0; i < 20000; i++) {
    const scale = Math.fround((Number(next() >> 11n) / 2 ** 53) * 0.01);
    const weight = Math.fround(2.12 * scale);
    expect(check.isNearest(weight, Math.fround(2 * scale), scale)).toBe(true);
  }
});

it("nearest means the code that a cast writes", () => {
  const check = codeCheck("F8_E4M3");
  for (const weight of weightsFor(gridOf("F8_E4M3")).map(Math.fround)) {
    const code = tableOf("F8_E4M3")[encode("F8_E4M3", Math.max(-448, Math.min(448, weight)))]!;
    expect(check.isNearest(weight, code, 1)).toBe(true);
  }
});
