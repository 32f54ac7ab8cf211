/**
 * What a router chooses experts by: sigmoid(logit) + correction. The weights of what is chosen know no correction
 * (router-weigh.ts).
 */
import { type Kernel, ROUNDING } from "../kernel.ts";
import { routerScoreWgsl } from "../wgsl/router.ts";

export interface RouterScoreParams {
  readonly tokens: number;
  readonly experts: number;
}

export const routerScore: Kernel<RouterScoreParams> = {
  id: "router-score",
  inputs: ({ tokens, experts }) => [
    { name: "logits", length: tokens * experts, dtype: "F32", hard: "gate" }, // [T, experts]
    { name: "correction", length: experts, dtype: "F32" },
  ],
  output: ({ tokens, experts }) => ({ name: "scores", length: tokens * experts, dtype: "F32" }), // [T, experts]
  cases: [
    { tokens: 1, experts: 5 },
    { tokens: 3, experts: 12 },
    { tokens: 7, experts: 130 },
  ],
  // A sigmoid of at most 1 is off by 5 roundings (exp 2, a sum, a quotient 1, exp once more where x < 0), the sum by one
  // of its own; the cases draw a score of at least 1/2 among them.
  bound: () => (2 * 5 + 1) * ROUNDING,
  oracle({ experts }, [logits, correction], scores) {
    for (let i = 0; i < scores.length; i++) {
      scores[i] = (1 + Math.tanh(logits![i]! / 2)) / 2 + correction![i % experts]!;
    }
  },
  wasm: {
    fn: "routerScore",
    scalars: ({ experts }) => [experts],
    items: ({ tokens }) => tokens,
    work: ({ tokens, experts }) => 12 * tokens * experts,
  },
  wgsl: routerScoreWgsl,
  pace: { p: { tokens: 64, experts: 128 }, work: 8 * 64 * 128, unit: "GB/s" },
};
