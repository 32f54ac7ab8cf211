/** The WGSL form of kernels over random shapes, all codes and extreme numbers, compared with the oracle and the WASM form. */

import { describe, expect, it } from "vitest";
import { checkKernels } from "../../kernels/check.ts";
import type { LinearParams } from "../../kernels/definitions/linear.ts";
import {
  attention,
  conv1d,
  gatedNorm,
  kernels,
  layerNorm,
  linear,
  mix,
  rmsNorm,
  routerChoose,
  routerScore,
  routerSoftmax,
  routerWeigh,
  ssd,
  ssdStep,
  widen,
} from "../../kernels/index.ts";
import { type Kernel, STORED_DTYPES } from "../../kernels/kernel.ts";
import { MIN_CHUNKED_TOKENS } from "../../kernels/wgsl/ssd.ts";
import { blockElements } from "../../src/core/dtype.ts";
import { tableOf } from "../../src/core/float.ts";
import { expectWithinBounds, gpu, plain } from "../support/kernels/forms.ts";
import { runOn } from "../support/kernels/run.ts";
import { randomFrom } from "../support/random.ts";

describe("is within its bound of the float64 oracle", () => {
  it.each(kernels)("$id", async (kernel) => {
    await expectWithinBounds(kernel, kernel.cases);
  });
});

describe("is within its bound over random shapes, like the WASM form", () => {
  const random = randomFrom(20261124);
  const pick = <T>(...from: readonly T[]): T => from[random(from.length)]!;

  it("linear: any band, columns, tokens and dtype", async () => {
    const cases = Array.from({ length: 12 }, (): LinearParams => {
      const dtype = pick(...STORED_DTYPES);
      const cols = blockElements(dtype) > 1 ? 256 * pick(1, 2, 5) : 1 + random(300);
      const [inFrom, outFrom] = [random(9), random(9)];
      const [tokens, rows] = [pick(1, 2, 4, 5, 16, 17), 1 + random(80)];
      return {
        ...{ tokens, rows, cols, dtype, scale: Math.fround(pick(1, 0.0173, 3)) },
        ...{ firstRow: random(5), inWidth: inFrom + cols + random(5), inFrom },
        ...{ outWidth: outFrom + rows + random(5), outFrom },
      };
    });
    await expectWithinBounds(linear, cases);
  });

  it("conv1d and norms: any width, taps and groups", async () => {
    for (let i = 0; i < 6; i++) {
      const [tokens, width, groups] = [1 + random(20), 1 + random(300), pick(1, 2, 8)];
      await expectWithinBounds(conv1d, [{ past: 0, tokens, width, kernel: 1 + random(6) }]);
      await expectWithinBounds(rmsNorm, [{ tokens, width, eps: 1e-5 }]);
      await expectWithinBounds(layerNorm, [
        { tokens, width: width + 1, eps: 1e-5, zeroCentered: i % 2 === 0 },
      ]);
      const [size, normFirst] = [{ tokens, width: width * groups, groups }, i % 2 === 0];
      await expectWithinBounds(gatedNorm, [{ ...size, eps: 1e-5, normFirst }]);
    }
  });

  it("attention: any number of shared heads, any width", async () => {
    const cases = Array.from({ length: 6 }, () => {
      const kvHeads = 1 + random(3);
      return {
        tokens: pick(1, 1, 15, 16, 17, 33),
        past: pick(0, 0, 3, 16, 21, 127, 128),
        heads: kvHeads * pick(1, 2, 4),
        kvHeads,
        dim: 1 + random(40),
        scale: pick(0.1, 0.3),
        window: pick(0, 1, 7, 16, 40),
      };
    });
    await expectWithinBounds(attention, cases);
  });

  it("experts: any number of experts and groups", async () => {
    for (let i = 0; i < 6; i++) {
      const [groups, size, tokens] = [pick(1, 1, 2, 4), 2 + random(20), 1 + random(20)];
      const experts = groups * size;
      const topGroups = 1 + random(groups);
      const topK = 1 + random(topGroups * size);
      await expectWithinBounds(routerScore, [{ tokens, experts }]);
      await expectWithinBounds(routerChoose, [{ tokens, experts, topK, groups, topGroups }]);
      await expectWithinBounds(routerWeigh, [{ tokens, experts, topK, normalise: i % 2 === 0, scale: 2.5 }]);
      const over = i % 2 === 0 ? "all" : "chosen";
      await expectWithinBounds(routerSoftmax, [{ tokens, experts, topK, over }]);
      await expectWithinBounds(mix, [
        { sources: 1 + random(9), rows: tokens, terms: topK, width: 1 + random(70) },
      ]);
    }
  });

  it.each([
    1,
    2,
    17,
    63,
    64,
    65,
    MIN_CHUNKED_TOKENS - 1,
    MIN_CHUNKED_TOKENS,
    MIN_CHUNKED_TOKENS + 1,
    MIN_CHUNKED_TOKENS + 64,
  ])("scans: %d tokens", async (tokens) => {
    const [groups, state] = [pick(1, 2, 4), 1 + random(20)];
    const shape = { heads: groups * pick(1, 2, 3), headDim: 1 + random(20), groups, state };
    const p = { tokens, ...shape, dtMin: pick(0, 0.1), dtMax: pick(2, Infinity) };
    await expectWithinBounds(ssd, [p]);
    await expectWithinBounds(ssdStep, [p]);
  });
});

describe.each(["F16", "BF16", "F8_E4M3", "F8_E5M2"] as const)("every code of %s", (dtype) => {
  const table = tableOf(dtype);
  const codes = (table.length === 256 ? Uint8Array : Uint16Array).from(table.keys());

  it("widens exactly, bit for bit", async () => {
    const got = await runOn(gpu, widen, { count: codes.length, dtype, scale: 1 }, [codes]);
    expect(got.findIndex((value, i) => !Object.is(value, table[i]))).toBe(-1);
  });

  it("is exact in a product, except that a subnormal may count as zero", async () => {
    const rows = codes.length;
    const p = { tokens: 1, rows, cols: 1, firstRow: 0, inWidth: 1, inFrom: 0, outWidth: rows, outFrom: 0 };
    const got = await runOn(gpu, linear, { ...p, dtype, scale: 1 }, [codes, Float32Array.of(1)]);
    const wrong = got.findIndex((value, i) => {
      const flushed = Math.abs(table[i]!) < 2 ** -126 ? 0 : table[i]!;
      return !Object.is(value, table[i]) && value !== flushed;
    });
    expect(wrong).toBe(-1);
  });
});

describe("extreme numbers", () => {
  const p = { tokens: 3, heads: 2, headDim: 4, groups: 1, state: 4, dtMin: 0, dtMax: Infinity };
  const constant = (length: number, value: number) => new Float32Array(length).fill(value);

  it.each([p.tokens, MIN_CHUNKED_TOKENS + 2])(
    "a huge delta removes the earlier state, %d tokens",
    async (tokens) => {
      const x = Float32Array.from({ length: tokens * 8 }, (_, i) => Math.sin(i));
      const [ones, zeros] = [constant(tokens * 4, 1), constant(2, 0)];
      const inputs = [x, ones, ones, constant(tokens * 2, 1e6), constant(2, 3), zeros, zeros];
      const got = await runOn(gpu, ssd, { ...p, tokens }, inputs);
      const wanted = x.map((value) => 4 * 1e6 * value); // only the token itself: delta x (C . B)
      got.forEach((y, i) => {
        expect(Math.abs(y - wanted[i]!)).toBeLessThanOrEqual(1e-5 * Math.abs(wanted[i]!));
      });
    },
  );

  it("the norm of zeros is zero, the norm of the largest floats is finite", async () => {
    const gain = constant(4, 1);
    const zeros = await runOn(gpu, rmsNorm, { tokens: 1, width: 4, eps: 1e-5 }, [constant(4, 0), gain]);
    expect([...zeros]).toEqual([0, 0, 0, 0]);
    const large = await runOn(gpu, rmsNorm, { tokens: 1, width: 4, eps: 1e-5 }, [constant(4, 3e38), gain]);
    for (const value of large) expect(value).toBeCloseTo(1, 5);
  });

  it("softmax handles scores whose exp overflows", async () => {
    const size = { tokens: 3, past: 0, heads: 1, kvHeads: 1, dim: 1, scale: 1, window: 0 };
    const inputs = [constant(3, 1e4), Float32Array.of(-1, 1, 1), Float32Array.of(5, 7, 9)];
    expect([...(await runOn(gpu, attention, size, inputs))]).toEqual([5, 7, 8]);
    const one = [constant(1, 1e4), ...inputs.slice(1)];
    expect([...(await runOn(gpu, attention, { ...size, tokens: 1, past: 2 }, one))]).toEqual([8]);
  });

  it("a NaN stays NaN and does not change earlier tokens", async () => {
    const q = Float32Array.of(1, 1, 1);
    const v = Float32Array.of(1, 2, Number.NaN);
    const size = { heads: 1, kvHeads: 1, dim: 1, scale: 1, window: 0 };
    const got = await runOn(gpu, attention, { tokens: 3, past: 0, ...size }, [q, q, v]);
    expect([...got]).toEqual([1, 1.5, Number.NaN]);
    const one = [Float32Array.of(1), Float32Array.of(1, Number.NaN, 1), q];
    expect([...(await runOn(gpu, attention, { tokens: 1, past: 2, ...size }, one))]).toEqual([Number.NaN]);
    const inWindow = { tokens: 1, past: 2, ...size, window: 1 };
    expect([...(await runOn(gpu, attention, inWindow, one))]).toEqual([1]);
    const early = Float32Array.of(Number.NaN, 1, 2);
    const windowed = await runOn(gpu, attention, { tokens: 3, past: 0, ...size, window: 2 }, [
      q,
      early,
      early,
    ]);
    expect([...windowed]).toEqual([Number.NaN, Number.NaN, expect.closeTo(1.731, 3)]);
    const taps = [Float32Array.of(Number.NaN, -1e30, 1e30), constant(3, 1), constant(3, 0)];
    const silu = await runOn(gpu, conv1d, { tokens: 1, past: 0, width: 3, kernel: 1 }, taps);
    expect([...silu.map((value) => Math.abs(value))]).toEqual([Number.NaN, 0, Math.fround(1e30)]);
  });
});

it.each([rmsNorm, layerNorm])("$id takes more rows than a dimension has workgroups", async (kernel) => {
  const many = { tokens: 131_072, width: 128, eps: 1e-5, zeroCentered: false };
  const [across, down] = kernel.wgsl.passes(many, [])[0]!.workgroups;
  expect(Math.max(across, down)).toBeLessThan(65536);
  expect(across * down).toBeGreaterThanOrEqual(many.tokens);
  // The same shader with few rows, of which no dimension has all.
  const passes = (p: typeof many) =>
    kernel.wgsl
      .passes(p, [])
      .map((pass) => ({ ...pass, workgroups: [2, Math.ceil(p.tokens / 2), 1] as const }));
  const folded = { ...kernel, cases: [{ ...many, tokens: 5 }], wgsl: { ...kernel.wgsl, passes } } as Kernel;
  const [row] = await checkKernels(plain, [folded]);
  expect(row, JSON.stringify(row)).toMatchObject({ ok: true });
});

it("a row has the same bits in every band", async () => {
  const p: LinearParams = {
    ...{ tokens: 5, rows: 70, cols: 140, dtype: "F32", scale: 0.5 },
    ...{ firstRow: 0, inWidth: 140, inFrom: 0, outWidth: 70, outFrom: 0 },
  };
  const ramp = (length: number, step: number) => Float32Array.from({ length }, (_, i) => Math.sin(i * step));
  for (const tokens of [1, 5]) {
    const operands = [ramp(p.rows * p.cols, 0.7), ramp(tokens * p.cols, 1.3)];
    const whole = await runOn(gpu, linear, { ...p, tokens }, operands);
    for (const [firstRow, rows] of [
      [0, 3],
      [1, 66],
      [65, 5],
    ] as const) {
      const band = await runOn(gpu, linear, { ...p, tokens, firstRow, rows, outWidth: rows }, operands);
      for (let t = 0; t < tokens; t++) {
        const expected = whole.slice(t * p.rows + firstRow, t * p.rows + firstRow + rows);
        expect(band.slice(t * rows, (t + 1) * rows)).toEqual(expected);
      }
    }
  }
});
