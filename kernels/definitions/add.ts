/** The residual stream: out = a + b. `out` may be `a` or `b`. */
import { type Kernel, ROUNDING } from "../kernel.ts";
import { addWgsl } from "../wgsl/elementwise.ts";

export interface AddParams {
  readonly count: number;
}

export const add: Kernel<AddParams> = {
  id: "add",
  inputs: ({ count }) => [
    { name: "a", length: count, dtype: "F32", hard: "wide" },
    { name: "b", length: count, dtype: "F32" },
  ],
  output: ({ count }) => ({ name: "out", length: count, dtype: "F32" }),
  cases: [{ count: 1 }, { count: 4 }, { count: 1027 }],
  bound: () => ROUNDING, // one rounding
  oracle(_, [a, b], out) {
    for (let i = 0; i < out.length; i++) out[i] = a![i]! + b![i]!;
  },
  wasm: { fn: "add", scalars: () => [], items: (p) => p.count, work: (p) => p.count },
  wgsl: addWgsl,
  pace: { p: { count: 1 << 20 }, work: 12 << 20, unit: "GB/s" },
};
