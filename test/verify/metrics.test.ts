/** Metrics against their definitions, over whole rows in float64. */
import { describe, expect, it } from "vitest";
import { Distance, relL2 } from "../../src/core/distance.ts";
import { LogitsComparison } from "../../src/verify/metrics.ts";
import { randomFrom } from "../support/random.ts";

const random = randomFrom(11);
const uniform = () => random(1 << 24) / 2 ** 24;
const drawn = (count: number, scale: number) =>
  Float32Array.from({ length: count }, () => scale * (uniform() - 0.5));
const [TOKENS, VOCAB] = [23, 67];
const ids = Array.from({ length: TOKENS }, () => random(VOCAB));

interface Pair {
  readonly a: Float32Array;
  readonly b: Float32Array;
}

const near = (spread: number): Pair => {
  const a = drawn(TOKENS * VOCAB, 12);
  return { a, b: a.map((x) => x + spread * (uniform() - 0.5)) };
};

/** The summary as a textbook has it: softmax of a row, KL(p || q), the mean over positions. */
function defined({ a, b }: Pair, noise: number) {
  const row = (all: Float32Array, t: number) => [...all.subarray(t * VOCAB, (t + 1) * VOCAB)];
  const logSoftmax = (x: number[]) => {
    const logZ = Math.log(x.reduce((sum, v) => sum + Math.exp(v), 0));
    return x.map((v) => v - logZ);
  };
  const best = (x: number[]) => x.indexOf(Math.max(...x));
  const margin = (x: number[]) => {
    const [first, second] = [...x].sort((p, q) => q - p);
    return first! - second!;
  };
  const positions = ids.map((_, t) => {
    const [x, y] = [row(a, t), row(b, t)];
    const [p, q] = [logSoftmax(x), logSoftmax(y)];
    return {
      kl: p.reduce((sum, v, i) => sum + Math.exp(v) * (v - q[i]!), 0),
      agrees: best(x) === best(y) || margin(x) <= noise,
      nllA: -(p[ids[t + 1]!] ?? 0),
      nllB: -(q[ids[t + 1]!] ?? 0),
    };
  });
  const sum = (values: readonly number[]) => values.reduce((s, v) => s + v, 0);
  const kls = positions.map(({ kl }) => kl);
  const squares = (values: readonly number[]) => Math.sqrt(sum(values.map((v) => v * v)));
  const differences = [...a].map((x, i) => x - b[i]!);
  return {
    klMean: sum(kls) / TOKENS,
    klP99: [...kls].sort((x, y) => x - y)[Math.ceil(0.99 * TOKENS) - 1]!,
    top1: positions.filter(({ agrees }) => agrees).length / TOKENS,
    nllA: sum(positions.map(({ nllA }) => nllA)) / (TOKENS - 1),
    nllB: sum(positions.map(({ nllB }) => nllB)) / (TOKENS - 1),
    maxAbs: Math.max(...differences.map(Math.abs)),
    relL2: squares(differences) / squares([...a]),
  };
}

/** The same logits in blocks of so many words. */
function inBlocks({ a, b }: Pair, width: number, noise = 0) {
  const comparison = new LogitsComparison(ids);
  for (let lo = 0; lo < VOCAB; lo += width) {
    const size = Math.min(width, VOCAB - lo);
    const block = (all: Float32Array) =>
      Float32Array.from(
        { length: TOKENS * size },
        (_, i) => all[Math.floor(i / size) * VOCAB + lo + (i % size)]!,
      );
    comparison.add(lo, size, block(a), block(b));
  }
  return comparison.summary(noise);
}

describe("logits", () => {
  it.each([0, 1e-3, 0.1, 3, 40])("two rows up to %s apart measure as defined", (spread) => {
    for (const noise of [0, 0.05, 1]) {
      const pair = near(spread);
      const want = defined(pair, noise);
      const got = inBlocks(pair, VOCAB, noise);
      for (const key of Object.keys(want) as (keyof typeof want)[]) {
        expect(got[key], key).toBeCloseTo(want[key], 9);
      }
    }
  });

  it("a block's end changes no bit", () => {
    const pair = near(0.5);
    const whole = inBlocks(pair, VOCAB);
    for (const width of [1, 2, 7, 33, 66]) expect(inBlocks(pair, width)).toEqual(whole);
  });

  it("logits that shift together, however large, are the same distribution", () => {
    const { a } = near(0);
    const large = a.map((x) => Math.fround(x + 3e4));
    const got = inBlocks({ a: large, b: large }, 10);
    expect(got).toMatchObject({ klMean: 0, klP99: 0, top1: 1, maxAbs: 0, relL2: 0 });
    expect(got.nllA).toBeLessThan(20);
  });

  it("a flip counts only where the margin exceeds the noise", () => {
    const a = new Float32Array(TOKENS * VOCAB);
    const b = new Float32Array(TOKENS * VOCAB);
    for (let t = 0; t < TOKENS; t++) {
      a[t * VOCAB] = 1;
      b[t * VOCAB + 1] = 1;
    }
    expect(inBlocks({ a, b }, 8, 0.99).top1).toBe(0);
    expect(inBlocks({ a, b }, 8, 1).top1).toBe(1);
  });

  it("one token has no loss", () => {
    const comparison = new LogitsComparison([3]);
    comparison.add(0, 2, Float32Array.of(1, 2), Float32Array.of(1, 2));
    expect(comparison.summary(0)).toMatchObject({ nllA: 0, nllB: 0, top1: 1 });
  });

  it.each([NaN, Infinity, -Infinity])("%s is counted, and never close", (lost) => {
    const { a } = near(0);
    const b = a.slice();
    b[5] = lost;
    const one = inBlocks({ a, b }, 16);
    expect(one).toMatchObject({ nonFiniteA: 0, nonFiniteB: 1, maxAbs: Infinity, relL2: Infinity });
    if (lost !== -Infinity) expect(one.klMean).toBe(Infinity);
    const both = inBlocks({ a: b, b }, 16);
    expect(both).toMatchObject({ nonFiniteA: 1, nonFiniteB: 1, maxAbs: 0, relL2: 0 });
    const all = new Float32Array(a.length).fill(NaN);
    expect(inBlocks({ a: all, b: all }, 16, 1e9).top1).toBe(0);
  });
});

describe("distance", () => {
  it("is zero for equal numbers, NaNs and infinities included", () => {
    const values = Float32Array.of(1, NaN, Infinity, -Infinity, 0);
    expect(relL2(values, values.slice())).toBe(0);
  });

  it.each([
    ["an infinity beside a number that differs", [Infinity, 1], [Infinity, 2]],
    ["a lost number", [1, 1], [NaN, 1]],
    ["a found number", [NaN, 1], [1, 1]],
    ["unlike infinities", [Infinity, 1], [-Infinity, 1]],
    ["something where nothing was", [0, 0], [0, 1e-30]],
    ["a NaN before equal numbers", [1, 1, 1], [NaN, 1, 1]],
  ])("is not zero for %s", (_, a, b) => {
    const distance = new Distance().add(Float32Array.from(a), Float32Array.from(b));
    expect(distance.relL2).toBeGreaterThan(0);
    expect(distance.maxAbs).toBeGreaterThan(0);
  });

  it("is the same bits however the columns are cut", () => {
    const { a, b } = near(1);
    const whole = new Distance(TOKENS).add(a, b);
    const cut = new Distance(TOKENS);
    const columns = (all: Float32Array, lo: number, hi: number) =>
      Float32Array.from({ length: TOKENS * (hi - lo) }, (_, i) => {
        return all[Math.floor(i / (hi - lo)) * VOCAB + lo + (i % (hi - lo))]!;
      });
    for (const [lo, hi] of [
      [0, 5],
      [5, 40],
      [40, VOCAB],
    ] as const)
      cut.add(columns(a, lo, hi), columns(b, lo, hi));
    expect(cut.relL2).toBe(whole.relL2);
  });
});

describe("positions", () => {
  it("the worst first, none where both sides agree, and never more than 512 values", () => {
    const count = 1300;
    const comparison = new LogitsComparison(Array.from({ length: count }, (_, t) => t));
    const a = new Float32Array(2 * count);
    const b = Float32Array.from(a);
    [b[2 * 700], b[2 * 5]] = [3, 1];
    comparison.add(0, 2, a, b);
    const { positions } = comparison.summary(0);
    expect(positions.worst.map(({ position, id, bestA, bestB }) => [position, id, bestA, bestB])).toEqual([
      [700, 700, 0, 0],
      [5, 5, 0, 0],
    ]);
    expect([positions.per, positions.kl.length]).toEqual([3, 434]);
    expect(positions.kl.flatMap((kl, i) => (kl > 0 ? [i] : []))).toEqual([1, 233]);
  });
});
