/** What a scale covers, against a plain computation over the sorted values. */
import { describe, expect, it } from "vitest";
import { coveredMagnitude } from "../../src/calibrate/rules.ts";
import { encode, tableOf } from "../../src/core/float.ts";
import { CALIBRATION_RULES } from "../../src/quantization/calibration.ts";
import { randomFrom } from "../support/random.ts";

const COUNT = 40_000;

/** Normal values; each of the last `outliers` is `factor` times as large. */
function activations(seed: number, outliers: number, factor: number): Float32Array {
  const random = randomFrom(seed);
  const uniform = () => (random(2 ** 24) + 1) / 2 ** 24;
  return Float32Array.from({ length: COUNT }, (_, i) => {
    const normal = Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
    return i < COUNT - outliers ? normal : factor * normal;
  });
}

const cases = [
  ["normal values", activations(1, 0, 1)],
  ["one outlier", activations(2, 1, 1000)],
  ["some outliers", activations(3, 40, 30)],
  ["squares, half of them 0", activations(4, 0, 1).map((value) => Math.max(0, value) ** 2)],
] as const;

const amaxOf = (values: Float32Array) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

/** Exact mean squared error of E4M3 under amax / 448. */
function squaredError(values: Float32Array, magnitude: number): number {
  const scale = Math.fround(magnitude / 448);
  const table = tableOf("F8_E4M3");
  return values.reduce((sum, value) => {
    const code = encode("F8_E4M3", Math.min(448, Math.abs(value) / scale));
    return sum + (Math.abs(value) - table[code]! * scale) ** 2 / values.length;
  }, 0);
}

describe.each(cases)("%s", (_, values) => {
  const amax = amaxOf(values);

  it("amax covers the largest magnitude", () => {
    expect(coveredMagnitude(values, "amax")).toBe(amax);
  });

  it("percentile covers 99.99 % of the values and no more than one interval beyond", () => {
    const covered = coveredMagnitude(values, "percentile");
    const share = (limit: number) =>
      values.reduce((sum, value) => sum + (Math.abs(value) <= limit ? 1 : 0), 0) / COUNT;
    expect(share(covered)).toBeGreaterThanOrEqual(0.9999);
    expect(share(covered - (1.01 * amax) / 2048)).toBeLessThan(0.9999);
  });

  it("mse has an error as small as the best of 21 candidates", () => {
    const candidates = Array.from({ length: 21 }, (_, i) => Math.fround(amax * (1 - i / 100)));
    const covered = coveredMagnitude(values, "mse");
    expect(candidates).toContain(covered);
    const least = Math.min(...candidates.map((candidate) => squaredError(values, candidate)));
    expect(squaredError(values, covered)).toBeLessThanOrEqual(1.02 * least);
  });

  it.each(CALIBRATION_RULES)("%s depends on no order", (rule) => {
    expect(coveredMagnitude(values.toReversed(), rule)).toBe(coveredMagnitude(values, rule));
  });
});

it("the rules differ where there is an outlier", () => {
  const [, values] = cases[2];
  const [amax, percentile, mse] = CALIBRATION_RULES.map((rule) => coveredMagnitude(values, rule));
  expect(percentile).toBeLessThan(0.9 * amax!);
  expect(mse).toBeLessThan(amax!);
});

it.each(CALIBRATION_RULES)("%s of zeros is 0, of one value that value, and a NaN stays", (rule) => {
  expect(coveredMagnitude(new Float32Array(8), rule)).toBe(0);
  expect(coveredMagnitude(Float32Array.of(-2.5), rule)).toBe(2.5);
  expect(coveredMagnitude(Float32Array.of(1, Number.NaN, 9), rule)).toBeNaN();
  expect(coveredMagnitude(Float32Array.of(1, -Infinity), rule)).toBe(Infinity);
  expect(coveredMagnitude(Float32Array.of(2 ** -149), rule)).toBe(2 ** -149);
});
