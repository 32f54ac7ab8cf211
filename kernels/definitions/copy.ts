/** A run of elements from one array into another, bit by bit: what a run keeps of its streams for the next. */
import type { Kernel } from "../kernel.ts";
import { copyWgsl } from "../wgsl/elementwise.ts";

export interface CopyParams {
  readonly count: number;
  /** the first element taken of `x` */
  readonly from: number;
  /** where it goes in `out`; what lies before and behind stays */
  readonly at: number;
}

export const copy: Kernel<CopyParams> = {
  id: "copy",
  inputs: ({ count, from }) => [{ name: "x", length: from + count, dtype: "F32", hard: "wide" }],
  output: ({ count, at }) => ({ name: "out", length: at + count, dtype: "F32" }),
  cases: [
    { count: 1, from: 0, at: 0 },
    { count: 7, from: 2, at: 0 },
    { count: 1027, from: 5, at: 38 },
  ],
  bound: () => 0, // nothing is computed
  oracle({ count, from, at }, [x], out) {
    out.set(x!.subarray(from, from + count), at);
  },
  wasm: {
    fn: "copy",
    scalars: ({ from, at }) => [from, at],
    items: ({ count }) => count,
    work: ({ count }) => count,
  },
  wgsl: copyWgsl,
  pace: { p: { count: 1 << 20, from: 0, at: 0 }, work: 8 << 20, unit: "GB/s" },
};
