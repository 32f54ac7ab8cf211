/** The mixture-of-experts kernels: the steps of a router (score, choose, weigh, softmax), and sums of rows (mix). */
import { type KernelDefinition, ROUNDING } from "../kernel.ts";

export interface RouterScoreParams {
  readonly tokens: number;
  readonly experts: number;
}

/**
 * The score by which a router chooses experts: sigmoid(logit) + correction. The weights of the chosen experts
 * (`routerWeighDefinition`) do not include the correction.
 */
export const routerScoreDefinition: KernelDefinition<RouterScoreParams> = {
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
  // The error of a sigmoid, which is at most 1, is 5 roundings (exp 2, a sum, a quotient 1, exp again where x < 0); the
  // sum adds one. The largest score of a case is at least 1/2.
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
  benchmark: { p: { tokens: 64, experts: 128 }, work: 8 * 64 * 128, unit: "GB/s" },
};

export interface RouterChooseParams {
  readonly tokens: number;
  readonly experts: number;
  /** at most the experts of `topGroups` groups */
  readonly topK: number;
  /** number of groups of experts: 1, or several of equal size with at least two experts each */
  readonly groups: number;
  readonly topGroups: number;
}

/**
 * Which experts a token gets: the `topK` of the highest scores, ascending, as whole numbers. With several groups only
 * the `topGroups` best are eligible: the score of a group is the sum (in F32) of its two highest scores. The others are
 * excluded, whatever their scores.
 *
 * Of two equal scores or groups the earlier is chosen; torch.topk does not define this. NaN is above every number, as
 * in torch.topk.
 */
export const routerChooseDefinition: KernelDefinition<RouterChooseParams> = {
  id: "router-choose",
  inputs: ({ tokens, experts }) => [
    { name: "scores", length: tokens * experts, dtype: "F32", hard: "ties" }, // [T, experts]
  ],
  output: ({ tokens, topK }) => ({ name: "chosen", length: tokens * topK, dtype: "F32" }), // [T, topK]
  cases: [
    { tokens: 1, experts: 1, topK: 1, groups: 1, topGroups: 1 },
    { tokens: 9, experts: 8, topK: 3, groups: 2, topGroups: 1 },
    { tokens: 5, experts: 12, topK: 4, groups: 1, topGroups: 1 },
    { tokens: 11, experts: 24, topK: 7, groups: 6, topGroups: 3 },
    { tokens: 6, experts: 9, topK: 9, groups: 3, topGroups: 3 },
    { tokens: 3, experts: 512, topK: 22, groups: 1, topGroups: 1 },
  ],
  bound: () => 0, // the sum of two scores is the only rounding, the same in every form
  oracle({ experts, topK, groups, topGroups }, [scores], chosen) {
    const size = experts / groups;
    const best = (values: readonly number[], count: number) =>
      [...values.keys()].sort((a, b) => values[b]! - values[a]! || a - b).slice(0, count);
    for (let t = 0; t * topK < chosen.length; t++) {
      const row = [...scores!.subarray(t * experts, (t + 1) * experts)];
      const groupScores = Array.from({ length: groups }, (_, g) => {
        const [first = -Infinity, second = -Infinity] = row
          .slice(g * size, (g + 1) * size)
          .sort((a, b) => b - a);
        return Math.fround(first + second);
      });
      const eligibleGroups = new Set(best(groupScores, topGroups));
      const eligible = row.map((score, e) => (eligibleGroups.has(Math.floor(e / size)) ? score : -Infinity));
      chosen.set(
        best(eligible, topK).sort((a, b) => a - b),
        t * topK,
      );
    }
  },
  wasm: {
    fn: "routerChoose",
    scalars: ({ experts, topK, groups, topGroups }) => [experts, topK, groups, topGroups],
    items: ({ tokens }) => tokens,
    work: ({ tokens, experts, topK }) => tokens * experts * (topK + 1),
    scratch: ({ groups }) => 8 * groups, // a score and a flag for each group
  },
  benchmark: {
    p: { tokens: 64, experts: 128, topK: 6, groups: 1, topGroups: 1 },
    work: 4 * 64 * (128 + 6),
    unit: "GB/s",
  },
};

export interface RouterWeighParams {
  readonly tokens: number;
  readonly experts: number;
  readonly topK: number;
  readonly normalise: boolean;
  readonly scale: number;
}

/**
 * The weight of each chosen expert: the sigmoid of its logit, without the correction that is part of its score; divided
 * by the sum over the chosen (plus 1e-20) where `normalise` is set, and times `scale`.
 */
export const routerWeighDefinition: KernelDefinition<RouterWeighParams> = {
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
  // The error of a sigmoid is 5 roundings, of their sum (all positive) 5 and one for each term; quotient, product and
  // scale add 3.
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
  benchmark: {
    p: { tokens: 64, experts: 128, topK: 6, normalise: true, scale: 2.5 },
    work: 12 * 64 * 6,
    unit: "GB/s",
  },
};

export interface RouterSoftmaxParams {
  readonly tokens: number;
  readonly experts: number;
  readonly topK: number;
  /** the logits whose softmax it is: those of the chosen experts, or of all experts of the token */
  readonly over: "chosen" | "all";
}

/** The weight of each chosen expert as a softmax: e^logit divided by the sum of e^logit over the chosen or all experts. */
export const routerSoftmaxDefinition: KernelDefinition<RouterSoftmaxParams> = {
  id: "router-softmax",
  inputs: ({ tokens, experts, topK, over }) => [
    // Over all experts, chance may choose only experts with a weight near zero: no hard operands there.
    { name: "route", length: tokens * experts, dtype: "F32", ...(over === "chosen" && { hard: "gate" }) }, // [T, experts]
    { name: "chosen", length: tokens * topK, dtype: "F32", below: experts }, // [T, topK], whole numbers
  ],
  output: ({ tokens, topK }) => ({ name: "weights", length: tokens * topK, dtype: "F32" }), // [T, topK]
  cases: [
    { tokens: 1, experts: 1, topK: 1, over: "chosen" },
    { tokens: 9, experts: 8, topK: 2, over: "chosen" },
    { tokens: 5, experts: 130, topK: 11, over: "chosen" },
    { tokens: 3, experts: 7, topK: 3, over: "all" },
    { tokens: 40, experts: 130, topK: 8, over: "all" },
  ],
  bound: (p) => softmaxRoundings(p, 2, 1) * ROUNDING,
  oracle({ experts, topK, over }, [route, chosen], weights) {
    const shares = route!.map(Math.exp); // the logits of the cases are below 350
    for (let i = 0; i < weights.length; i++) {
      const t = Math.floor(i / topK);
      const row = shares.subarray(t * experts, (t + 1) * experts);
      const of = over === "all" ? row : chosen!.subarray(t * topK, (t + 1) * topK).map((e) => row[e]!);
      weights[i] = row[chosen![i]!]! / of.reduceRight((a, b) => a + b);
    }
  },
  wasm: {
    fn: "routerSoftmax",
    scalars: ({ experts, topK, over }) => [experts, topK, over === "all" ? 1 : 0],
    items: ({ tokens }) => tokens,
    work: ({ tokens, experts, topK, over }) => 12 * tokens * ((over === "all" ? experts : 0) + topK),
  },
  benchmark: {
    p: { tokens: 64, experts: 128, topK: 8, over: "all" },
    work: 4 * 64 * (128 + 16),
    unit: "GB/s",
  },
};

/**
 * Roundings of a weight, relative to the largest, where an exp and a division have this many. With a = largest logit -
 * logit, e^-a has those of exp, and a for the difference. The sum adds one for each addition; its terms have the mean of
 * a, which is at most ln n for n terms. Relative to the largest weight, a e^-a is at most 0.4; over all experts the
 * largest may be missing, so that a itself counts: at most 7 in the cases.
 */
export function softmaxRoundings(
  { experts, topK, over }: RouterSoftmaxParams,
  exp: number,
  division: number,
): number {
  const terms = over === "all" ? experts : topK;
  return (over === "all" ? 7 : 0.4) + 2 * exp + Math.log(terms) + terms + division;
}

export interface MixParams {
  /** rows of `x` */
  readonly sources: number;
  readonly rows: number;
  /** terms of each row */
  readonly terms: number;
  readonly width: number;
}

/**
 * Weighted sums of rows: out[r] = sum over j of weight[r, j] * x[source[r, j]], in the order of j. Dispatches
 * tokens to experts (one term of weight 1, which is exact) and combines the results of the experts.
 */
export const mixDefinition: KernelDefinition<MixParams> = {
  id: "mix",
  inputs: ({ sources, rows, terms, width }) => [
    { name: "x", length: sources * width, dtype: "F32" }, // [sources, width]
    { name: "source", length: rows * terms, dtype: "F32", below: sources }, // [rows, terms], whole numbers
    { name: "weight", length: rows * terms, dtype: "F32" }, // [rows, terms]
  ],
  output: ({ rows, width }) => ({ name: "out", length: rows * width, dtype: "F32" }), // [rows, width]
  cases: [
    { sources: 1, rows: 1, terms: 1, width: 1 },
    { sources: 3, rows: 7, terms: 1, width: 13 },
    { sources: 24, rows: 5, terms: 6, width: 37 },
    { sources: 9, rows: 40, terms: 3, width: 32 },
  ],
  // Each term passes a product and at most `terms` additions. The sum of magnitudes is about sqrt(terms) times the
  // Largest |out| to expect if the summed terms have random signs, as they have in the test cases.
  bound: ({ terms }) => (terms + 1) * (1 + Math.sqrt(terms)) * ROUNDING,
  oracle({ rows, terms, width }, [x, source, weight], out) {
    out.fill(0);
    // Each source row is added to the outputs that use it, the last term first.
    for (let s = 0; s * width < x!.length; s++) {
      for (let i = rows * terms - 1; i >= 0; i--) {
        if (source![i] !== s) continue;
        const r = Math.floor(i / terms);
        for (let c = 0; c < width; c++) out[r * width + c]! += weight![i]! * x![s * width + c]!;
      }
    }
  },
  wasm: {
    fn: "mix",
    scalars: ({ terms, width }) => [terms, width],
    items: ({ rows }) => rows,
    work: ({ rows, terms, width }) => rows * terms * width,
  },
  benchmark: { p: { sources: 384, rows: 64, terms: 6, width: 4096 }, work: 4 * 64 * 4096 * 7, unit: "GB/s" },
};
