import { describe, expect, it } from "vitest";
import { createSampler } from "../../src/inference/decoding/sample.ts";
import { codeOf } from "../support/errors.ts";

const logits = Float32Array.of(1, 3, 2, 3, -1);

/** How often each token is chosen of 4,000. */
function countsOf(sampling: Parameters<typeof createSampler>[0]): number[] {
  const choose = createSampler(sampling);
  const counts = [0, 0, 0, 0, 0];
  for (let i = 0; i < 4000; i++) counts[choose(logits)]!++;
  return counts;
}

it("takes the best, of equals the lower id", () => {
  expect(createSampler({})(logits)).toBe(1);
  expect(createSampler({ seed: 9 })(logits)).toBe(1);
  expect(createSampler({})(Float32Array.of(-Infinity, -5, -5))).toBe(1);
});

it("draws as often as the softmax says", () => {
  const shares = [...logits].map((logit) => Math.exp(logit / 2));
  const sum = shares.reduce((a, b) => a + b);
  const counts = countsOf({ temperature: 2 });
  // four standard deviations of a count
  for (const [id, share] of shares.entries()) {
    const p = share / sum;
    expect(Math.abs(counts[id]! - 4000 * p)).toBeLessThan(4 * Math.sqrt(4000 * p * (1 - p)));
  }
});

it("the same seed draws the same, another draws other tokens", () => {
  const draw = (seed: number) => {
    const choose = createSampler({ temperature: 1, seed });
    return Array.from({ length: 40 }, () => choose(logits)).join("");
  };
  expect(draw(1)).toBe(draw(1));
  expect(draw(1)).not.toBe(draw(2));
});

describe("keeps to the best", () => {
  it("topK, of equals the lower id", () => {
    expect(countsOf({ temperature: 1, topK: 1 })).toEqual([0, 4000, 0, 0, 0]);
    const two = countsOf({ temperature: 1, topK: 2 });
    expect([two[0], two[2], two[4]]).toEqual([0, 0, 0]);
    expect(two[3]).toBeGreaterThan(1800);
  });

  it("topP: the fewest that reach it", () => {
    expect(countsOf({ temperature: 1, topP: 0.01 })).toEqual([0, 4000, 0, 0, 0]);
    // the two best have 0.80 of it, three 0.95
    const counts = countsOf({ temperature: 1, topP: 0.9 });
    expect([counts[0], counts[4]]).toEqual([0, 0]);
    expect(Math.min(counts[1]!, counts[2]!, counts[3]!)).toBeGreaterThan(0);
  });
});

it("refuses logits that are no numbers", async () => {
  for (const broken of [Number.NaN, Infinity])
    expect(await codeOf(async () => createSampler({})(Float32Array.of(0, broken)))).toBe("NON_FINITE");
});
