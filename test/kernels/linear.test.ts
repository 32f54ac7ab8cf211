import { afterAll, describe, expect, it } from "vitest";
import { createWasmBackend } from "../../kernels/backend/wasm.ts";
import { type LinearParams, roundingsOf } from "../../kernels/definitions/linear.ts";
import { add, linear, widen } from "../../kernels/index.ts";
import { type Region, ROUNDING } from "../../kernels/kernel.ts";
import { tableOf } from "../../src/core/float.ts";
import { runOn } from "../support/kernels/run.ts";

const backend = await createWasmBackend({ threads: 1, memoryBytes: 64 << 20 });
afterAll(() => backend[Symbol.asyncDispose]());

const NARROW = ["BF16", "F16", "F8_E4M3", "F8_E5M2"] as const;
const codesOf = (dtype: (typeof NARROW)[number]) =>
  dtype === "BF16" || dtype === "F16"
    ? Uint16Array.from(tableOf(dtype).keys())
    : Uint8Array.from(tableOf(dtype).keys());

const ramp = (length: number, step: number) => Float32Array.from({ length }, (_, i) => Math.sin(i * step));
const p: LinearParams = {
  ...{ tokens: 9, rows: 23, cols: 1037, dtype: "F32", scale: 0.5 },
  ...{ firstRow: 0, inWidth: 1037, inFrom: 0, outWidth: 23, outFrom: 0 },
};
const weight = ramp(p.rows * p.cols, 0.7);
const x = ramp(p.tokens * p.inWidth, 1.3);
const whole = await runOn(backend, linear, p, [weight, x]);

describe.each(NARROW)("every code of %s", (dtype) => {
  const codes = codesOf(dtype);

  it("widens exactly", async () => {
    const got = await runOn(backend, widen, { count: codes.length, dtype, scale: 1 }, [codes]);
    expect(firstUnequal(got, tableOf(dtype))).toBe(-1);
  });

  it("is exact in a product", async () => {
    const rows = codes.length;
    const sizes = {
      tokens: 1,
      rows,
      cols: 1,
      firstRow: 0,
      inWidth: 1,
      inFrom: 0,
      outWidth: rows,
      outFrom: 0,
    };
    const got = await runOn(backend, linear, { ...sizes, dtype, scale: 1 }, [codes, Float32Array.of(1)]);
    const sums = tableOf(dtype).map((value) => 0 + value); // a sum starts at 0, and 0 + -0 is 0
    expect(firstUnequal(got, sums)).toBe(-1);
  });
});

describe("the error is at most the roundings of a term, for any signs", () => {
  it.each([1, 3, 64, 1023, 1024, 1025, 1037, 4099])("%d columns", async (cols) => {
    const size = { ...p, cols, inWidth: cols };
    const operands = [ramp(p.rows * cols, 0.7), ramp(p.tokens * cols, 1.3)];
    const got = await runOn(backend, linear, size, operands);
    const [wanted, magnitude] = [operands, operands.map((x) => x.map(Math.abs))].map((inputs) => {
      const out = new Float64Array(got.length);
      linear.oracle(
        size,
        inputs.map((x) => Float64Array.from(x)),
        out,
      );
      return out;
    });
    got.forEach((y, i) => {
      const allowed = roundingsOf(cols) * ROUNDING * magnitude![i]!;
      expect(Math.abs(y - wanted![i]!), `output ${i}`).toBeLessThanOrEqual(allowed);
    });
  });
});

it("a row has the same bits in every band", async () => {
  for (const firstRow of [0, 1, 3, 4, 18]) {
    for (const rows of [1, 2, 5]) {
      const band = await runOn(backend, linear, { ...p, firstRow, rows, outWidth: rows }, [weight, x]);
      for (let t = 0; t < p.tokens; t++) {
        const expected = whole.subarray(t * p.rows + firstRow, t * p.rows + firstRow + rows);
        expect(firstUnequal(band.subarray(t * rows, (t + 1) * rows), expected)).toBe(-1);
      }
    }
  }
});

it("a token has the same bits whatever the other tokens are", async () => {
  for (const tokens of [1, 2, 5]) {
    const part = await runOn(backend, linear, { ...p, tokens }, [weight, x]);
    expect(firstUnequal(part, whole.subarray(0, tokens * p.rows))).toBe(-1);
  }
  const many = await runOn(backend, linear, { ...p, tokens: 261 }, [weight, repeat(x, 29)]);
  expect(firstUnequal(many, repeat(whole, 29))).toBe(-1);
});

describe("uses the new x after each way to change it", () => {
  const size = { ...p, tokens: 2, rows: 3, cols: 8, inWidth: 8, outWidth: 3 };
  const bytes = (values: Float32Array) => (view: Uint8Array) => view.set(new Uint8Array(values.buffer));
  const [before, after] = [ramp(16, 1.3), ramp(16, 0.4)];

  const rewrite: Record<string, (x: Region) => Promise<Region>> = {
    async "by an upload"(x) {
      await backend.upload(x, 64, bytes(after!));
      return x;
    },
    async "by another kernel"(x) {
      const more = backend.allocate(64);
      await backend.upload(more, 64, bytes(after!.map((value, i) => value - before![i]!)));
      await backend.run(add, { count: 16 }, [x, more], x);
      return x;
    },
    async "as another region in its place"(x) {
      backend.release(x);
      const anew = backend.allocate(64);
      await backend.upload(anew, 64, bytes(after!));
      return anew;
    },
  };
  it.each(Object.keys(rewrite))("%s", async (how) => {
    const [w, out] = [backend.allocate(96), backend.allocate(24)];
    let x = backend.allocate(64);
    await backend.upload(w, 96, bytes(ramp(24, 0.7)));
    await backend.upload(x, 64, bytes(before!));
    await backend.run(linear, size, [w, x], out);
    const first = (await backend.view(out, 6)).slice();
    x = await rewrite[how]!(x);
    await backend.run(linear, size, [w, x], out);
    const second = (await backend.view(out, 6)).slice();
    for (const region of [w, out, x]) backend.release(region);
    const now = (await backend.view(x, 16)).slice();
    expect(firstUnequal(second, await runOn(backend, linear, size, [ramp(24, 0.7), now]))).toBe(-1);
    expect(firstUnequal(second, first)).not.toBe(-1);
  });
});

it("reads and writes only its own columns", async () => {
  const wide = { ...p, inWidth: p.cols + 7, inFrom: 3, outWidth: p.rows + 6, outFrom: 5 };
  const around = new Float32Array(p.tokens * wide.inWidth).fill(Number.NaN);
  for (let t = 0; t < p.tokens; t++) {
    around.set(x.subarray(t * p.cols, (t + 1) * p.cols), t * wide.inWidth + wide.inFrom);
  }
  const got = await runOn(backend, linear, wide, [weight, around]);
  const expected = new Float32Array(got.length);
  for (let t = 0; t < p.tokens; t++) {
    expected.set(whole.subarray(t * p.rows, (t + 1) * p.rows), t * wide.outWidth + wide.outFrom);
  }
  expect(firstUnequal(got, expected)).toBe(-1);
});

function repeat(array: Float32Array, times: number): Float32Array {
  const all = new Float32Array(array.length * times);
  for (let i = 0; i < times; i++) all.set(array, i * array.length);
  return all;
}

/** Index of the first element that is not the same number (NaN is NaN, -0 is not 0), or -1. */
function firstUnequal(a: Float32Array, b: Float32Array): number {
  expect(a.length).toBe(b.length);
  return a.findIndex((value, i) => !Object.is(value, b[i]));
}
