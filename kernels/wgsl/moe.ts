/** The mixture-of-experts kernels: a router scores, chooses and weighs experts; `mix` sums rows with weights. */

import {
  type MixParams,
  type RouterChooseParams,
  type RouterScoreParams,
  type RouterSoftmaxParams,
  type RouterWeighParams,
  softmaxRoundings,
} from "../definitions/moe.ts";
import { ROUNDING, type WgslForm } from "../kernel.ts";
import {
  DIVISION_ROUNDINGS,
  EXP_ROUNDINGS,
  EXP_WGSL,
  IS_NAN_WGSL,
  SIGMOID_ROUNDINGS,
  SIGMOID_WGSL,
} from "./elementary.ts";
import { elementShader, elementWorkgroups } from "./shader.ts";

export const routerScoreWgsl: WgslForm<RouterScoreParams> = {
  passes: ({ tokens, experts }) => [
    {
      reads: { logits: "f32", correction: "f32" },
      writes: { scores: "f32" },
      u32: { count: tokens * experts, experts },
      code: `${SIGMOID_WGSL}\n${elementShader("scores[i] = sigmoidOf(logits[i]) + correction[i % p.experts];")}`,
      workgroups: elementWorkgroups(tokens * experts),
    },
  ],
  bound: () => (2 * SIGMOID_ROUNDINGS + 1) * ROUNDING,
};

/**
 * One token in each thread. It finds the next best expert topK times, each time after the last one found; then it
 * writes every expert that is at least as good as the last one, in ascending order. No score is near 1e38, which means
 * "above all" here.
 */
const chooseCode = (groups: number): string => `${IS_NAN_WGSL}
const GROUPS = ${groups}u;
fn rankOf(score: f32) -> f32 { return select(score, 1e38, isNaN(score)); }
${elementShader(`
  let row = i * p.experts;
  let size = p.experts / GROUPS;
  var worth: array<f32, GROUPS>;
  for (var g = 0u; g < GROUPS; g++) {
    var first = -1e38;
    var second = -1e38;
    for (var e = g * size; e < (g + 1u) * size; e++) {
      let rank = rankOf(scores[row + e]);
      second = max(second, min(first, rank));
      first = max(first, rank);
    }
    worth[g] = first + second;
  }
  var kept: array<bool, GROUPS>;
  for (var g = 0u; g < GROUPS; g++) {
    var better = 0u;
    for (var o = 0u; o < GROUPS; o++) {
      if (worth[o] > worth[g] || (worth[o] == worth[g] && o < g)) { better++; }
    }
    kept[g] = better < p.topGroups;
  }
  var last = 2e38;
  var lastExpert = 0u;
  for (var k = 0u; k < p.topK; k++) {
    var best = -2e38;
    var bestExpert = 0u;
    for (var e = 0u; e < p.experts; e++) {
      let rank = rankOf(scores[row + e]);
      let behind = rank < last || (rank == last && e > lastExpert);
      if (kept[e / size] && behind && rank > best) {
        best = rank;
        bestExpert = e;
      }
    }
    last = best;
    lastExpert = bestExpert;
  }
  var found = 0u;
  for (var e = 0u; e < p.experts; e++) {
    let rank = rankOf(scores[row + e]);
    if (kept[e / size] && (rank > last || (rank == last && e <= lastExpert))) {
      chosen[i * p.topK + found] = f32(e);
      found++;
    }
  }`)}`;

export const routerChooseWgsl: WgslForm<RouterChooseParams> = {
  passes: ({ tokens, experts, topK, groups, topGroups }) => [
    {
      reads: { scores: "f32" },
      writes: { chosen: "f32" },
      u32: { count: tokens, experts, topK, topGroups },
      code: chooseCode(groups),
      workgroups: elementWorkgroups(tokens),
    },
  ],
};

const WEIGH = `${SIGMOID_WGSL}
fn scoreOf(t: u32, k: u32) -> f32 { return sigmoidOf(logits[t * p.experts + u32(chosen[t * p.topK + k])]); }
${elementShader(`
  var sum = 1.0;
  if (p.normalise == 1u) {
    sum = 1e-20;
    for (var k = 0u; k < p.topK; k++) { sum += scoreOf(i, k); }
  }
  for (var k = 0u; k < p.topK; k++) { weights[i * p.topK + k] = p.scale * (scoreOf(i, k) / sum); }`)}`;

export const routerWeighWgsl: WgslForm<RouterWeighParams> = {
  passes: ({ tokens, experts, topK, normalise, scale }) => [
    {
      reads: { logits: "f32", chosen: "f32" },
      writes: { weights: "f32" },
      u32: { count: tokens, experts, topK, normalise: normalise ? 1 : 0 },
      f32: { scale },
      code: WEIGH,
      workgroups: elementWorkgroups(tokens),
    },
  ],
  bound: ({ topK }) => (2 * SIGMOID_ROUNDINGS + topK + DIVISION_ROUNDINGS + 1) * ROUNDING,
};

/** `termOf` gives the logits over which the softmax is. */
const SOFTMAX = `${EXP_WGSL}
fn chosenLogit(t: u32, k: u32) -> f32 { return route[t * p.experts + u32(chosen[t * p.topK + k])]; }
fn termOf(t: u32, k: u32) -> f32 {
  if (p.all == 1u) { return route[t * p.experts + k]; }
  return chosenLogit(t, k);
}
${elementShader(`
  let terms = select(p.topK, p.experts, p.all == 1u);
  var peak = termOf(i, 0u);
  for (var k = 1u; k < terms; k++) { peak = max(peak, termOf(i, k)); }
  var sum = 0.0;
  for (var k = 0u; k < terms; k++) { sum += expOf(termOf(i, k) - peak); }
  for (var k = 0u; k < p.topK; k++) { weights[i * p.topK + k] = expOf(chosenLogit(i, k) - peak) / sum; }`)}`;

export const routerSoftmaxWgsl: WgslForm<RouterSoftmaxParams> = {
  passes: ({ tokens, experts, topK, over }) => [
    {
      reads: { route: "f32", chosen: "f32" },
      writes: { weights: "f32" },
      u32: { count: tokens, experts, topK, all: over === "all" ? 1 : 0 },
      code: SOFTMAX,
      workgroups: elementWorkgroups(tokens),
    },
  ],
  bound: (p) => softmaxRoundings(p, EXP_ROUNDINGS, DIVISION_ROUNDINGS) * ROUNDING,
};

export const mixWgsl: WgslForm<MixParams> = {
  passes: ({ rows, terms, width }) => [
    {
      reads: { x: "f32", source: "f32", weight: "f32" },
      writes: { out: "f32" },
      u32: { count: rows * width, terms, width },
      code: elementShader(`
  let first = i / p.width * p.terms;
  var sum = 0.0;
  for (var j = first; j < first + p.terms; j++) { sum += weight[j] * x[u32(source[j]) * p.width + i % p.width]; }
  out[i] = sum;`),
      workgroups: elementWorkgroups(rows * width),
    },
  ],
};
