/** The activation of Nemotron's MLP: y = max(x, 0)^2. `y` may be `x`. */
import { type Kernel, ROUNDING } from "../kernel.ts";
import { relu2Wgsl } from "../wgsl/elementwise.ts";

export interface Relu2Params {
  readonly count: number;
}

export const relu2: Kernel<Relu2Params> = {
  id: "relu2",
  inputs: ({ count }) => [{ name: "x", length: count, dtype: "F32", hard: "wide" }],
  output: ({ count }) => ({ name: "y", length: count, dtype: "F32" }),
  cases: [{ count: 1 }, { count: 4 }, { count: 1027 }],
  bound: () => ROUNDING, // one rounding
  oracle(_, [x], y) {
    for (let i = 0; i < y.length; i++) y[i] = x![i]! > 0 ? x![i]! ** 2 : 0;
  },
  wasm: { fn: "relu2", scalars: () => [], items: (p) => p.count, work: (p) => p.count },
  wgsl: relu2Wgsl,
  pace: { p: { count: 1 << 20 }, work: 8 << 20, unit: "GB/s" },
};
