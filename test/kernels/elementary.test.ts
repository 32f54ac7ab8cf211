/** exp, silu and softplus, seen through the smallest kernels that use them. */
import { afterAll, expect, it } from "vitest";
import { createWasmBackend } from "../../kernels/backend/wasm.ts";
import { attention, conv1d, ssd } from "../../kernels/index.ts";
import { runOn } from "../support/kernels/run.ts";

const backend = await createWasmBackend({ threads: 1, memoryBytes: 64 << 20 });
afterAll(() => backend[Symbol.asyncDispose]());

const constant = (length: number, value: number) => new Float32Array(length).fill(value);
// From -110 to 110, thinner around zero, and far ends.
const arguments_ = Float32Array.from({ length: 20_001 }, (_, i) => ((i - 10_000) / 10_000) ** 3 * 110);
const ends = Float32Array.of(0, -0, 1e-40, -1e-40, 1e-20, 88.7, -88.7, 1000, -1000, 3e38, -3e38);

/**
 * Error in units of the last place of the right answer. Where e^-|x| is subnormal (|x| > 87) it has few bits left, and
 * silu multiplies what it lacks by x: there the unit is 2^-142.
 */
function ulps(got: number, wanted: number): number {
  const exponent = Math.floor(Math.log2(Math.max(Math.abs(wanted), 2 ** -119)));
  return Math.abs(got - wanted) / 2 ** (exponent - 23);
}

async function silu(x: Float32Array): Promise<Float32Array> {
  const width = x.length;
  return runOn(backend, conv1d, { tokens: 1, past: 0, width, kernel: 1 }, [
    x,
    constant(width, 1),
    constant(width, 0),
  ]);
}

/** One token, a head an argument, B = C = x = 1: y is delta. */
async function softplus(x: Float32Array): Promise<Float32Array> {
  const heads = x.length;
  const one = constant(1, 1);
  const zeros = constant(heads, 0);
  const p = { tokens: 1, heads, headDim: 1, groups: 1, state: 1, dtMin: 0, dtMax: Infinity };
  return runOn(backend, ssd, p, [constant(heads, 1), one, one, x, zeros, zeros, zeros]);
}

it("silu is within 4 units in the last place", async () => {
  for (const x of [arguments_, ends]) {
    const got = await silu(x);
    got.forEach((y, i) => {
      const wanted = x[i]! / (1 + Math.exp(-x[i]!));
      expect(ulps(y, wanted), `silu(${x[i]}) = ${y}, not ${wanted}`).toBeLessThan(4);
    });
  }
});

it("softplus is within 4 units in the last place", async () => {
  for (const x of [arguments_, ends]) {
    const got = await softplus(x);
    got.forEach((y, i) => {
      const wanted = Math.max(x[i]!, 0) + Math.log1p(Math.exp(-Math.abs(x[i]!)));
      expect(ulps(y, wanted), `softplus(${x[i]}) = ${y}, not ${wanted}`).toBeLessThan(4);
    });
  }
});

it("attention handles scores whose exp overflows", async () => {
  const p = { tokens: 3, past: 0, heads: 1, kvHeads: 1, dim: 1, scale: 1, window: 0 };
  const q = Float32Array.of(1e4, 1e4, 1e4);
  const got = await runOn(backend, attention, p, [q, Float32Array.of(-1, 1, 1), Float32Array.of(5, 7, 9)]);
  expect(Array.from(got)).toEqual([5, 7, 8]);
});

const wave = (length: number, step: number) => Float32Array.from({ length }, (_, i) => Math.sin(step * i));

it.each([0, 1, 2, 3, 6])(
  "in attention, a NaN token changes only tokens that see it, window %d",
  async (window) => {
    for (const tokens of [5, 8, 11]) {
      const p = { tokens, past: 0, heads: 2, kvHeads: 1, dim: 12, scale: 0.3, window };
      const [q, k, v] = [wave(tokens * 24, 1.3), wave(tokens * 12, 0.7), wave(tokens * 12, 2.1)];
      const sound = await runOn(backend, attention, p, [q, k, v]);
      for (let bad = 0; bad < tokens; bad++) {
        const end = window === 0 ? tokens : Math.min(tokens, bad + window);
        for (const value of [Number.NaN, Infinity]) {
          const spoilt = [k, v].map((x) => x.slice().fill(value, bad * 12, (bad + 1) * 12));
          const got = await runOn(backend, attention, p, [q, ...spoilt]);
          expect(got.subarray(0, bad * 24)).toEqual(sound.subarray(0, bad * 24));
          expect(got.subarray(bad * 24, end * 24).some(Number.isNaN)).toBe(true);
          expect(got.subarray(end * 24)).toEqual(sound.subarray(end * 24));
        }
      }
    }
  },
);

it.each([0, 1, 3, 6, 13])(
  "attention of a token has the same bits with any tokens beside it, window %d",
  async (window) => {
    const [tokens, size] = [21, { heads: 2, kvHeads: 1, dim: 12, scale: 0.3, window }];
    const [q, k, v] = [wave(tokens * 24, 1.3), wave(tokens * 12, 0.7), wave(tokens * 12, 2.1)];
    const whole = await runOn(backend, attention, { ...size, tokens, past: 0 }, [q, k, v]);
    for (let past = 1; past < tokens; past++) {
      const rest = { ...size, tokens: tokens - past, past };
      const got = await runOn(backend, attention, rest, [q.slice(past * 24), k, v]);
      expect(got, `past ${past}`).toEqual(whole.slice(past * 24));
    }
  },
);
