/**
 * How much each chosen expert counts: the sigmoid of its logit, without the correction that helped to choose it; divided
 * by the sum over the chosen (plus 1e-20) where `normalise` is set, and times `scale`.
 */
import { type Kernel, ROUNDING } from "../kernel.ts";
import { routerWeighWgsl } from "../wgsl/router.ts";

export interface RouterWeighParams {
  readonly tokens: number;
  readonly experts: number;
  readonly topK: number;
  readonly normalise: boolean;
  readonly scale: number;
}

export const routerWeigh: Kernel<RouterWeighParams> = {
  id: "router-weigh",
  inputs: ({ tokens, experts, topK }) => [
    { name: "logits", length: tokens * experts, dtype: "F32" }, // [T, experts]
    { name: "chosen", length: tokens * topK, dtype: "F32", below: experts }, // [T, topK], whole numbers
  ],
  output: ({ tokens, topK }) => ({ name: "weights", length: tokens * topK, dtype: "F32" }), // [T, topK]
  cases: [
    { tokens: 1, experts: 1, topK: 1, normalise: true, scale: 1 },
    { tokens: 9, experts: 8, topK: 3, normalise: true, scale: 2.5 },
    { tokens: 5, experts: 12, topK: 4, normalise: false, scale: 5 },
    { tokens: 40, experts: 128, topK: 6, normalise: true, scale: 2.5 },
    { tokens: 2, experts: 512, topK: 22, normalise: true, scale: 5 },
  ],
  // A sigmoid is off by 5 roundings, their sum (all positive) by 5 and one a term; quotient, product and scale by 3.
  bound: ({ topK }) => (13 + topK) * ROUNDING,
  oracle({ tokens, experts, topK, normalise, scale }, [logits, chosen], weights) {
    for (let t = 0; t < tokens; t++) {
      const scores = [...chosen!.subarray(t * topK, (t + 1) * topK)].map(
        (expert) => (1 + Math.tanh(logits![t * experts + expert]! / 2)) / 2,
      );
      const sum = normalise ? scores.reduceRight((a, b) => a + b) : 1;
      weights.set(
        scores.map((score) => (scale * score) / sum),
        t * topK,
      );
    }
  },
  wasm: {
    fn: "routerWeigh",
    scalars: ({ experts, topK, normalise, scale }) => [experts, topK, normalise ? 1 : 0, scale],
    items: ({ tokens }) => tokens,
    work: ({ tokens, topK }) => 40 * tokens * topK,
  },
  wgsl: routerWeighWgsl,
  pace: {
    p: { tokens: 64, experts: 128, topK: 6, normalise: true, scale: 2.5 },
    work: 12 * 64 * 6,
    unit: "GB/s",
  },
};
