/** Stored elements as F32: scale * x. Embedding rows and vectors become activations here. */
import type { FloatDType } from "../../src/core/dtype.ts";
import { type Kernel, ROUNDING, STORED } from "../kernel.ts";
import { widenWgsl } from "../wgsl/elementwise.ts";

export interface WidenParams {
  readonly count: number;
  readonly dtype: FloatDType;
  /** factor from stored to real values; an F32 value */
  readonly scale: number;
}

export const widen: Kernel<WidenParams> = {
  id: "widen",
  inputs: ({ count, dtype }) => [{ name: "x", length: count, dtype, hard: "codes" }],
  output: ({ count }) => ({ name: "y", length: count, dtype: "F32" }),
  cases: STORED.flatMap((dtype) => [
    { count: 1, dtype, scale: 1 },
    { count: 259, dtype, scale: 1 },
    { count: 1022, dtype, scale: Math.fround(0.0173) },
  ]),
  bound: ({ scale }) => (scale === 1 ? 0 : ROUNDING), // decoding is exact; the scale is one rounding
  oracle({ scale }, [x], y) {
    for (let i = 0; i < y.length; i++) y[i] = scale * x![i]!;
  },
  wasm: {
    fn: "widen",
    scalars: ({ dtype, scale }) => [STORED.indexOf(dtype), scale],
    items: ({ count }) => count,
    work: ({ count }) => 2 * count,
    scratch: () => 1024, // 256 decoded floats
  },
  wgsl: widenWgsl,
  pace: { p: { count: 1 << 20, dtype: "BF16", scale: 1 }, work: 6 << 20, unit: "GB/s" },
};
