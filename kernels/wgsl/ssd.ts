/**
 * The Mamba-2 scan in two forms. Short prompts use the recurrence: each thread has one row of a head's state in
 * registers. Long prompts use chunks (the SSD form): the tokens of a chunk are combined as in attention, and the state
 * is passed from chunk to chunk.
 *
 * The decay over several tokens is the product of the decays of each token, not exp of a difference of sums: such a
 * difference loses all digits where one delta is large.
 */

import type { SsdParams } from "../definitions/ssd.ts";
import type { Pass } from "../kernel.ts";
import { ROUNDING, type WgslForm } from "../kernel.ts";
import { SOFTPLUS_ROUNDINGS, SOFTPLUS_WGSL } from "./elementary.ts";

const CHUNK = 64;
/** The smallest number of tokens for which the chunked form is used. */
export const MIN_CHUNKED_TOKENS = 2 * CHUNK;
/** threads of a workgroup: one row of the state each in the recurrence, one token each in the chunked form */
export const THREADS = 64;
/** rows of the state in a workgroup of the chunked form */
const ROWS = 16;
/** number of tokens s for which a thread computes C_t . B_s at once */
const PAIRS = 4;

export const scanUniforms = ({ tokens, heads, headDim, groups, dtMin, dtMax }: SsdParams) => ({
  u32: { tokens, heads, headDim, groups },
  f32: { dtMin, dtMax: Math.min(dtMax, 3.4e38) }, // devices may assume that infinities do not occur
});

/** Comparisons with NaN are false, so NaN stays NaN. */
const DELTA = `${SOFTPLUS_WGSL}
fn deltaOf(raw: f32) -> f32 {
  let delta = softplusOf(raw);
  return select(select(delta, p.dtMin, delta < p.dtMin), p.dtMax, delta > p.dtMax);
}`;

/** Four neighbouring elements of B or C of a token, with zeros after `STATE` elements. */
export const stateQuadCode = (name: string, array: string): string => `
fn ${name}(token: u32, group: u32, quad: u32) -> vec4f {
  let at = (token * p.groups + group) * STATE + 4u * quad;
  let four = vec4f(${[0, 1, 2, 3].map((i) => `${array}[at + ${i}u]`).join(", ")});
  return select(vec4f(), four, vec4u(0u, 1u, 2u, 3u) + 4u * quad < vec4u(STATE));
}`;

export const stateConstants = (state: number): string => `
const STATE = ${state}u;
const QUADS = ${Math.ceil(state / 4)}u;`;

const recurrenceCode = (state: number): string => `
${stateConstants(state)}
${DELTA}
${stateQuadCode("b4", "B")}
${stateQuadCode("c4", "C")}
var<workgroup> bs: array<vec4f, QUADS>;
var<workgroup> cs: array<vec4f, QUADS>;

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
  let head = workgroup.x;
  let group = head / (p.heads / p.groups);
  let row = workgroup.y * ${THREADS}u + lane;
  let a = expOf(A_log[head]);
  var s: array<vec4f, QUADS>;
  for (var t = 0u; t < p.tokens; t++) {
    workgroupBarrier();
    for (var n = lane; n < QUADS; n += ${THREADS}u) {
      bs[n] = b4(t, group, n);
      cs[n] = c4(t, group, n);
    }
    workgroupBarrier();
    let delta = deltaOf(dt[t * p.heads + head] + dt_bias[head]);
    let decay = expOf(-(delta * a));
    let at = (t * p.heads + head) * p.headDim + min(row, p.headDim - 1u);
    let input = delta * x[at];
    var sum = vec4f();
    for (var n = 0u; n < QUADS; n++) {
      s[n] = decay * s[n] + input * bs[n];
      sum += s[n] * cs[n];
    }
    if (row < p.headDim) { y[at] = dot(sum, vec4f(1.0)) + D[head] * x[at]; }
  }
}`;

/**
 * steps[t, head] = (delta, decay, decay from the start of the chunk through t, decay after t to the end of the chunk).
 * One chunk of a head in each thread.
 */
const STEPS = `${DELTA}
@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let head = id.x;
  if (head >= p.heads) { return; }
  let a = expOf(A_log[head]);
  let first = id.y * ${CHUNK}u;
  let end = min(first + ${CHUNK}u, p.tokens);
  var through = 1.0;
  for (var t = first; t < end; t++) {
    let delta = deltaOf(dt[t * p.heads + head] + dt_bias[head]);
    let decay = expOf(-(delta * a));
    through *= decay;
    steps[t * p.heads + head] = vec4f(delta, decay, through, 1.0);
  }
  var after = 1.0;
  for (var t = end; t > first; t--) {
    let at = (t - 1u) * p.heads + head;
    let step = steps[at];
    steps[at] = vec4f(step.xyz, after);
    after *= step.y;
  }
}`;

/** meets[chunk, group, s, t] = C_t . B_s for s <= t of one chunk. Each thread computes a token t and PAIRS tokens s. */
const meetCode = (state: number): string => `
${stateConstants(state)}
${stateQuadCode("b4", "B")}
${stateQuadCode("c4", "C")}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
  let chunk = workgroup.z;
  let group = workgroup.y;
  let s = workgroup.x * ${PAIRS}u;
  let last = p.tokens - 1u;
  let first = chunk * ${CHUNK}u;
  var sums: array<f32, ${PAIRS}>;
  for (var n = 0u; n < QUADS; n++) {
    let c = c4(min(first + lane, last), group, n);
    for (var i = 0u; i < ${PAIRS}u; i++) { sums[i] += dot(c, b4(min(first + s + i, last), group, n)); }
  }
  let at = ((chunk * p.groups + group) * ${CHUNK}u + s) * ${CHUNK}u + lane;
  for (var i = 0u; i < ${PAIRS}u; i++) { meet[at + i * ${CHUNK}u] = sums[i]; }
}`;

/**
 * Computes y, chunk after chunk, for ROWS rows of the state of one head. Each thread first computes the outputs of a
 * token: the contribution of the tokens of its chunk (from s = t backwards, multiplying the decays), and the
 * contribution of the state before the chunk. Then the threads divide the columns of the state and add the chunk to it.
 *
 * @param from the initial content of `states`: "zeros" (the shader sets them), or "before", the state after earlier
 * tokens
 */
const chunkedCode = (state: number, from: "zeros" | "before"): string => `
${stateConstants(state)}
${stateQuadCode("b4", "B")}
${stateQuadCode("c4", "C")}
const HALF = ${ROWS / 4}u;
var<workgroup> inputs: array<array<vec4f, HALF>, ${CHUNK}>;

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
  let head = workgroup.x;
  let group = head / (p.heads / p.groups);
  let firstRow = workgroup.y * ${ROWS}u;
  let rows = min(${ROWS}u, p.headDim - firstRow);
  let held = (head * p.headDim + firstRow) * QUADS;
  ${from === "zeros" ? `for (var i = lane; i < rows * QUADS; i += ${THREADS}u) { states[held + i] = vec4f(); }` : ""}
  for (var first = 0u; first < p.tokens; first += ${CHUNK}u) {
    let t = first + lane;
    let here = t < p.tokens;
    let at = (min(t, p.tokens - 1u) * p.heads + head) * p.headDim + firstRow;
    let step = steps[min(t, p.tokens - 1u) * p.heads + head];
    for (var q = 0u; q < HALF; q++) {
      var four = vec4f();
      for (var i = 0u; i < 4u; i++) {
        if (here && 4u * q + i < rows) { four[i] = step.x * x[at + 4u * q + i]; }
      }
      inputs[lane][q] = four;
    }
    storageBarrier();
    workgroupBarrier();

    if (here) {
      var sums = array<vec4f, HALF>();
      var decay = 1.0;
      let met = ((first / ${CHUNK}u * p.groups + group) * ${CHUNK}u) * ${CHUNK}u + lane;
      for (var back = 0u; back <= lane; back++) {
        let s = lane - back;
        let share = meet[met + s * ${CHUNK}u] * decay;
        decay *= steps[(first + s) * p.heads + head].y;
        for (var q = 0u; q < HALF; q++) { sums[q] += share * inputs[s][q]; }
      }
      var before = array<vec4f, HALF>();
      for (var n = 0u; n < QUADS; n++) {
        let c = c4(t, group, n);
        for (var q = 0u; q < HALF; q++) {
          for (var i = 0u; i < 4u; i++) {
            if (4u * q + i < rows) { before[q][i] += dot(c, states[held + (4u * q + i) * QUADS + n]); }
          }
        }
      }
      for (var q = 0u; q < HALF; q++) {
        for (var i = 0u; i < 4u; i++) {
          let row = 4u * q + i;
          if (row < rows) { y[at + row] = sums[q][i] + step.z * before[q][i] + D[head] * x[at + row]; }
        }
      }
    }
    storageBarrier();
    workgroupBarrier();

    let count = min(${CHUNK}u, p.tokens - first);
    let end = (first + count - 1u) * p.heads + head;
    for (var n = lane; n < QUADS; n += ${THREADS}u) {
      var next = array<vec4f, ${ROWS}>();
      for (var s = 0u; s < count; s++) {
        let b = b4(first + s, group, n) * steps[(first + s) * p.heads + head].w;
        for (var q = 0u; q < HALF; q++) {
          let four = inputs[s][q];
          next[4u * q] += four.x * b;
          next[4u * q + 1u] += four.y * b;
          next[4u * q + 2u] += four.z * b;
          next[4u * q + 3u] += four.w * b;
        }
      }
      let kept = steps[end].z;
      for (var row = 0u; row < rows; row++) {
        let place = held + row * QUADS + n;
        states[place] = kept * states[place] + next[row];
      }
    }
    storageBarrier();
    workgroupBarrier();
  }
}`;

export const stepsPass = (p: SsdParams): Pass => ({
  reads: { dt: "f32", A_log: "f32", dt_bias: "f32" },
  writes: { steps: "vec4f" },
  ...scanUniforms(p),
  code: STEPS,
  workgroups: [Math.ceil(p.heads / THREADS), Math.ceil(p.tokens / CHUNK), 1],
});

/** Bytes of the array `steps`. */
export const stepsBytes = ({ tokens, heads }: SsdParams): number => 16 * tokens * heads;

/** Bytes of the arrays between the passes of the chunked form. */
export function chunkedBytes(p: SsdParams) {
  const { tokens, heads, headDim, groups, state } = p;
  return {
    steps: stepsBytes(p),
    meet: 4 * Math.ceil(tokens / CHUNK) * CHUNK * CHUNK * groups,
    states: 16 * heads * headDim * Math.ceil(state / 4),
  };
}

export function chunkedPasses(p: SsdParams, from: "zeros" | "before"): readonly Pass[] {
  const { tokens, heads, headDim, groups, state } = p;
  const uniforms = scanUniforms(p);
  const chunks = Math.ceil(tokens / CHUNK);
  return [
    stepsPass(p),
    {
      reads: { B: "f32", C: "f32" },
      writes: { meet: "f32" },
      ...uniforms,
      code: meetCode(state),
      workgroups: [CHUNK / PAIRS, groups, chunks],
    },
    {
      reads: { x: "f32", B: "f32", C: "f32", D: "f32", steps: "vec4f", meet: "f32" },
      writes: { states: "vec4f", y: "f32" },
      ...uniforms,
      code: chunkedCode(state, from),
      workgroups: [heads, Math.ceil(headDim / ROWS), 1],
    },
  ];
}

/**
 * As `ssd.bound`: in both forms a term has one decay for each token and a sum over the state. The chunked form adds the
 * terms of each chunk separately: at most one addition for each token, and one for each chunk.
 */
export const scanBound = ({ tokens, state }: SsdParams): number =>
  (SOFTPLUS_ROUNDINGS + 2 + 5 * tokens + tokens / CHUNK + state / 4 + 3) *
  (1 + Math.sqrt(state) / 2) *
  ROUNDING;

export const ssdWgsl: WgslForm<SsdParams> = {
  passes(p) {
    if (p.tokens >= MIN_CHUNKED_TOKENS) return chunkedPasses(p, "zeros");
    return [
      {
        reads: { x: "f32", B: "f32", C: "f32", dt: "f32", A_log: "f32", D: "f32", dt_bias: "f32" },
        writes: { y: "f32" },
        ...scanUniforms(p),
        code: recurrenceCode(p.state),
        workgroups: [p.heads, Math.ceil(p.headDim / THREADS), 1],
      },
    ];
  },
  scratch: (p): Readonly<Record<string, number>> => (p.tokens < MIN_CHUNKED_TOKENS ? {} : chunkedBytes(p)),
  bound: scanBound,
};
