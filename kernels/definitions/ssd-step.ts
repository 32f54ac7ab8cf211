/**
 * Mamba-2's scan (see ssd.ts) that continues after earlier tokens: it starts with the state after them and returns the
 * state after its last token. The size of the state does not depend on the number of tokens.
 */
import type { KernelDefinition } from "../kernel.ts";
import { type SsdParams, scanScalars, ssdDefinition } from "./ssd.ts";

/** Number of elements of the state [heads, headDim, state]. */
export const stateLength = ({ heads, headDim, state }: SsdParams): number => heads * headDim * state;

export const ssdStepDefinition: KernelDefinition<SsdParams> = {
  id: "ssd-step",
  inputs: (p) => [{ name: "before", length: stateLength(p), dtype: "F32" }, ...ssdDefinition.inputs(p)],
  // y [T, heads, headDim], then the state after the last token
  output: (p) => ({ name: "y", length: p.tokens * p.heads * p.headDim + stateLength(p), dtype: "F32" }),
  cases: ssdDefinition.cases,
  bound: ssdDefinition.bound, // the state before is one more term, with as many decays as the first token has
  oracle(p, inputs, out) {
    const { tokens, heads, headDim, groups, state, dtMin, dtMax } = p;
    const [before, x, B, C, dt, aLog, , dtBias] = inputs;
    const y = out.subarray(0, tokens * heads * headDim);
    ssdDefinition.oracle(p, inputs.slice(1), y);
    for (let k = 0; k < heads; k++) {
      const deltas = Array.from({ length: tokens }, (_, t) =>
        Math.min(Math.max(Math.log1p(Math.exp(dt![t * heads + k]! + dtBias![k]!)), dtMin), dtMax),
      );
      const until = (from: number, to: number) =>
        Math.exp(-Math.exp(aLog![k]!) * deltas.slice(from, to).reduce((sum, delta) => sum + delta, 0));
      const group = Math.floor((k * groups) / heads);
      for (let i = 0; i < headDim; i++) {
        const row = (k * headDim + i) * state;
        for (let n = 0; n < state; n++) {
          const start = before![row + n]!;
          let after = until(0, tokens) * start;
          for (let t = 0; t < tokens; t++) {
            const place = (t * groups + group) * state + n;
            const at = (t * heads + k) * headDim + i;
            y[at]! += until(0, t + 1) * C![place]! * start;
            after += until(t + 1, tokens) * deltas[t]! * x![at]! * B![place]!;
          }
          out[y.length + row + n] = after;
        }
      }
    }
  },
  wasm: { ...ssdDefinition.wasm, scalars: scanScalars },
  benchmark: {
    ...ssdDefinition.benchmark,
    p: { ...ssdDefinition.benchmark.p, tokens: 1 },
    work: ssdDefinition.benchmark.work / ssdDefinition.benchmark.p.tokens,
  },
};
