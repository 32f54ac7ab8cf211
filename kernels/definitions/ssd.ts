/**
 * Mamba-2's state-space scan (SSD; Dao and Gu, arXiv 2405.21060), as a recurrence. For each head k, with the B
 * and C of group floor(k / (heads / groups)):
 *   delta = clamp(softplus(dt + dt_bias), dtMin, dtMax)
 *   S = exp(-delta exp(A_log)) S + (delta x) outer B, y = S C + D x
 */
import { type KernelDefinition, ROUNDING } from "../kernel.ts";

export interface SsdParams {
  readonly tokens: number;
  readonly heads: number;
  readonly headDim: number;
  readonly groups: number;
  readonly state: number;
  /** limits of delta; dtMax may be Infinity */
  readonly dtMin: number;
  readonly dtMax: number;
}

/** Numbers that the function `scan` of kernels/wasm/scan.ts takes before the address of the state. */
export const scanScalars = (p: SsdParams): readonly number[] => [
  p.tokens,
  p.heads,
  p.headDim,
  p.groups,
  p.state,
  p.dtMin,
  p.dtMax,
];

const unlimited = { dtMin: 0, dtMax: Infinity };

export const ssdDefinition: KernelDefinition<SsdParams> = {
  id: "ssd",
  inputs: ({ tokens, heads, headDim, groups, state }) => [
    { name: "x", length: tokens * heads * headDim, dtype: "F32" }, // [T, heads, headDim]
    { name: "B", length: tokens * groups * state, dtype: "F32" }, // [T, groups, state]
    { name: "C", length: tokens * groups * state, dtype: "F32" }, // [T, groups, state]
    { name: "dt", length: tokens * heads, dtype: "F32", hard: "gate" }, // [T, heads]
    { name: "A_log", length: heads, dtype: "F32" },
    { name: "D", length: heads, dtype: "F32" },
    { name: "dt_bias", length: heads, dtype: "F32" },
  ],
  output: ({ tokens, heads, headDim }) => ({ name: "y", length: tokens * heads * headDim, dtype: "F32" }),
  cases: [
    { tokens: 1, heads: 2, headDim: 3, groups: 1, state: 5, ...unlimited },
    { tokens: 7, heads: 6, headDim: 5, groups: 3, state: 6, ...unlimited },
    { tokens: 9, heads: 8, headDim: 8, groups: 2, state: 16, dtMin: 0.25, dtMax: 1.5 },
    { tokens: 33, heads: 4, headDim: 4, groups: 4, state: 32, ...unlimited },
    { tokens: 131, heads: 4, headDim: 21, groups: 2, state: 6, ...unlimited },
  ],
  // A term starts with 8 roundings (softplus 6, two products). Each step adds three: a product, a sum, and a decay
  // exp(-a) with an error of 3 + 8 a (its argument has 8), where a exp(-a) is below 0.4. The sum over the state adds
  // state / 4 + 3. All this is relative to the sum of magnitudes, which is about sqrt(state) / 2 times |y| for terms of
  // random sign, as in the cases; so the bound holds for such operands only.
  bound: ({ tokens, state }) => (8 + 5 * tokens + state / 4 + 3) * (1 + Math.sqrt(state) / 2) * ROUNDING,
  oracle({ tokens, heads, headDim, groups, state, dtMin, dtMax }, [x, B, C, dt, aLog, D, dtBias], y) {
    const at = (t: number, k: number) => (t * groups + Math.floor((k * groups) / heads)) * state;
    const delta = (t: number, k: number) =>
      Math.min(Math.max(Math.log1p(Math.exp(dt![t * heads + k]! + dtBias![k]!)), dtMin), dtMax);
    for (let k = 0; k < heads; k++) {
      for (let t = 0; t < tokens; t++) {
        // Without a state: y_t = sum over s <= t of exp(sum of a over (s, t]) (C_t . B_s) delta_s x_s + D x_t.
        const row = y.subarray((t * heads + k) * headDim, (t * heads + k + 1) * headDim); // [headDim]
        for (let i = 0; i < headDim; i++) row[i] = D![k]! * x![(t * heads + k) * headDim + i]!;
        let sum = 0;
        for (let s = t; s >= 0; s--) {
          let weight = Math.exp(sum) * delta(s, k);
          sum -= delta(s, k) * Math.exp(aLog![k]!);
          let product = 0;
          for (let n = 0; n < state; n++) product += C![at(t, k) + n]! * B![at(s, k) + n]!;
          weight *= product;
          for (let i = 0; i < headDim; i++) row[i]! += weight * x![(s * heads + k) * headDim + i]!;
        }
      }
    }
  },
  wasm: {
    fn: "scan",
    scalars: (p) => [...scanScalars(p), 0], // 0: no state before
    items: ({ heads }) => heads,
    work: ({ tokens, heads, headDim, state }) => 3 * tokens * heads * headDim * state,
    scratch: ({ headDim, state }) => 16 * Math.ceil(state / 4) * (headDim + 2), // the state, B and C of one token
  },
  benchmark: {
    p: { tokens: 64, heads: 16, headDim: 64, groups: 8, state: 128, ...unlimited },
    work: 5 * 64 * 16 * 64 * 128,
    unit: "GFLOP/s",
  },
};
