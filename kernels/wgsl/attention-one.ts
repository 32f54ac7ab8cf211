/**
 * Attention of one token, for decoding. A workgroup computes one head, THREADS keys at a time: first one key in each
 * thread, then one element of the result in each thread. The largest score and the sum of shares are shared by all.
 */
import { type AttentionParams, mostKeys } from "../definitions/attention.ts";
import { type Extensions, ROUNDING } from "../kernel.ts";
import { DIVISION_ROUNDINGS, EXP_ROUNDINGS, EXP_WGSL } from "./elementary.ts";
import { quadLoader } from "./quads.ts";
import { additionsOf, reductionCode } from "./reduce.ts";

/** The width of most heads: more threads would be idle in the second step. */
const THREADS = 128;

export const singleTokenCode = (dim: number, aligned: boolean, extensions: Extensions): string => `
${quadLoader("q4", "q", aligned).code}
${quadLoader("k4", "k", aligned).code}
${EXP_WGSL}
${reductionCode({ threads: THREADS, type: "f32", count: 1, operations: ["sumOf", "peakOf"] }, extensions)}
const DIM = ${dim}u;
const OWN = ${Math.ceil(dim / THREADS)}u;
var<workgroup> shares: array<f32, ${THREADS}>;

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3u, lane: Lane) {
  let head = group.x;
  let kvHead = head / (p.heads / p.kvHeads);
  let all = p.past + 1u;
  var peak = -3.0e38;
  var sum = 0.0;
  var mix: array<f32, OWN>;
  for (var first = all - p.window; first < all; first += ${THREADS}u) {
    let key = first + lane.index;
    var score = -3.0e38;
    if (key < all) {
      let at = (key * p.kvHeads + kvHead) * DIM;
      score = 0.0;
      for (var j = 0u; j < DIM; j += 4u) { score += dot(q4(head * DIM + j, DIM - j), k4(at + j, DIM - j)); }
      score *= p.scale;
    }
    let best = max(peak, peakOf(lane, array(score))[0]);
    let keep = expOf(peak - best);
    peak = best;
    let share = select(0.0, expOf(score - best), key < all);
    sum = sum * keep + share;
    shares[lane.index] = share;
    workgroupBarrier();
    for (var d = 0u; d < OWN; d++) { mix[d] *= keep; }
    for (var s = 0u; s < min(${THREADS}u, all - first); s++) {
      let value = ((first + s) * p.kvHeads + kvHead) * DIM + lane.index;
      for (var d = 0u; d < OWN; d++) { mix[d] += shares[s] * v[value + ${THREADS}u * d]; }
    }
  }
  let total = sumOf(lane, array(sum))[0];
  for (var d = 0u; d < OWN; d++) {
    let i = lane.index + ${THREADS}u * d;
    if (i < DIM) { out[head * DIM + i] = mix[d] / total; }
  }
}`;

/** As `attention.bound`, plus the errors of rescaling and of adding the sums of the threads. */
export const singleTokenBound = (p: AttentionParams, extensions: Extensions): number =>
  (2 * 0.64 * p.scale * p.dim * (p.dim / 4 + 5) +
    mostKeys(p) +
    (2 * (EXP_ROUNDINGS + 2) + 1) * Math.ceil(mostKeys(p) / THREADS) +
    additionsOf(THREADS, extensions) +
    EXP_ROUNDINGS +
    DIVISION_ROUNDINGS) *
  ROUNDING;
