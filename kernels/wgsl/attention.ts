/**
 * Causal attention. A workgroup computes 16 queries of one head and loads keys in tiles of 16 into workgroup memory.
 * Each query remembers its largest score and rescales its sums when a larger score is found; scores are not stored. A
 * single query has another form: see attention-one.ts.
 */
import { type AttentionParams, mostKeys } from "../definitions/attention.ts";
import { ROUNDING, type WgslForm } from "../kernel.ts";
import { singleTokenBound, singleTokenCode } from "./attention-one.ts";
import { DIVISION_ROUNDINGS, EXP_ROUNDINGS, EXP_WGSL } from "./elementary.ts";
import { quadLoader } from "./quads.ts";

const TILE = 16;

/**
 * Thread (query, lane) computes the score of its query with key `lane` of the tile, then elements lane, lane + 16, ...
 * of the result. `dim` is a constant in the text, because the size of the thread's arrays depends on it.
 */
const tiledCode = (dim: number, aligned: boolean): string => `
${quadLoader("q4", "q", aligned).code}
${quadLoader("k4", "k", aligned).code}
${EXP_WGSL}
const DIM = ${dim}u;
const QUADS = ${Math.ceil(dim / 4)}u;
const OWN = ${Math.ceil(dim / TILE)}u;
var<workgroup> keys: array<vec4f, ${TILE * Math.ceil(dim / 4)}>;
var<workgroup> scores: array<f32, ${TILE * TILE}>;
var<workgroup> shares: array<f32, ${TILE * TILE}>;

@compute @workgroup_size(${TILE * TILE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) index: u32) {
  let head = group.x;
  let kvHead = head / (p.heads / p.kvHeads);
  let first = group.y * ${TILE}u;
  let lane = index % ${TILE}u;
  let line = index - lane;
  let query = first + index / ${TILE}u;
  let mine = (min(query, p.tokens - 1u) * p.heads + head) * DIM;
  var peak = -3.0e38;
  var sum = 0.0;
  var mix: array<f32, OWN>;
  let all = p.past + p.tokens;
  let end = min(p.past + first + ${TILE}u, all);
  let start = max(p.past + query + 1u, p.window) - p.window;
  let startOfAll = max(p.past + first + 1u, p.window) - p.window;
  for (var tile = startOfAll; tile < end; tile += ${TILE}u) {
    for (var i = index; i < ${TILE}u * QUADS; i += ${TILE * TILE}u) {
      let key = min(tile + i % ${TILE}u, all - 1u);
      let j = 4u * (i / ${TILE}u);
      keys[i] = k4((key * p.kvHeads + kvHead) * DIM + j, DIM - j);
    }
    workgroupBarrier();
    var score = 0.0;
    for (var j = 0u; j < QUADS; j++) { score += dot(q4(mine + 4u * j, DIM - 4u * j), keys[j * ${TILE}u + lane]); }
    scores[index] = score * p.scale;
    workgroupBarrier();
    let seen = min(${TILE}u, max(p.past + query + 1u, tile) - tile);
    let unseen = max(start, tile) - tile;
    var best = peak;
    for (var j = unseen; j < seen; j++) { best = max(best, scores[line + j]); }
    shares[index] = expOf(scores[index] - best);
    workgroupBarrier();
    let keep = expOf(peak - best);
    peak = best;
    sum *= keep;
    for (var d = 0u; d < OWN; d++) { mix[d] *= keep; }
    for (var j = unseen; j < seen; j++) {
      let share = shares[line + j];
      sum += share;
      let value = ((tile + j) * p.kvHeads + kvHead) * DIM + lane;
      for (var d = 0u; d < OWN; d++) { mix[d] += share * v[value + ${TILE}u * d]; }
    }
  }
  if (query < p.tokens) {
    for (var d = 0u; d < OWN; d++) {
      let i = lane + ${TILE}u * d;
      if (i < DIM) { out[mine + i] = mix[d] / sum; }
    }
  }
}`;

export const attentionWgsl: WgslForm<AttentionParams> = {
  passes(p, extensions) {
    const { tokens, past, heads, kvHeads, dim, scale } = p;
    const aligned = dim % 4 === 0;
    return [
      {
        reads: { q: quadLoader("q4", "q", aligned).type, k: quadLoader("k4", "k", aligned).type, v: "f32" },
        writes: { out: "f32" },
        u32: { tokens, past, heads, kvHeads, window: mostKeys(p) },
        f32: { scale },
        code: tokens === 1 ? singleTokenCode(dim, aligned, extensions) : tiledCode(dim, aligned),
        workgroups: [heads, Math.ceil(tokens / TILE), 1],
      },
    ];
  },
  // As `attention.bound`, plus the rescaling for each tile after a query's first: a difference, an exp and a product, in
  // both sums.
  bound(p, extensions) {
    if (p.tokens === 1) return singleTokenBound(p, extensions);
    const scores = 2 * 0.64 * p.scale * p.dim * (p.dim / 4 + 5);
    const rescaled = 2 * (EXP_ROUNDINGS + 2) * Math.ceil(mostKeys(p) / TILE);
    return (scores + mostKeys(p) + rescaled + EXP_ROUNDINGS + DIVISION_ROUNDINGS) * ROUNDING;
  },
};
