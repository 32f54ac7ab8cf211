/**
 * The Mamba-2 scan that starts with a state and returns one, in the two forms of ssd.ts. A shader can bind at most
 * eight arrays; so the recurrence gets its steps from a separate pass, and the chunked form its state.
 */

import type { SsdParams } from "../definitions/ssd.ts";
import type { Pass, WgslForm } from "../kernel.ts";
import { elementShader, elementWorkgroups } from "./shader.ts";
import {
  chunkedBytes,
  chunkedPasses,
  MIN_CHUNKED_TOKENS,
  scanBound,
  scanUniforms,
  stateConstants,
  stateQuadCode,
  stepsBytes,
  stepsPass,
  THREADS,
} from "./ssd.ts";

const recurrenceCode = (state: number): string => `
${stateConstants(state)}
${stateQuadCode("b4", "B")}
${stateQuadCode("c4", "C")}
var<workgroup> bs: array<vec4f, QUADS>;
var<workgroup> cs: array<vec4f, QUADS>;

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
  let head = workgroup.x;
  let group = head / (p.heads / p.groups);
  let row = workgroup.y * ${THREADS}u + lane;
  let mine = min(row, p.headDim - 1u);
  let held = (head * p.headDim + mine) * STATE;
  var s: array<vec4f, QUADS>;
  for (var n = 0u; n < STATE; n++) { s[n / 4u][n % 4u] = before[held + n]; }
  for (var t = 0u; t < p.tokens; t++) {
    workgroupBarrier();
    for (var n = lane; n < QUADS; n += ${THREADS}u) {
      bs[n] = b4(t, group, n);
      cs[n] = c4(t, group, n);
    }
    workgroupBarrier();
    let step = steps[t * p.heads + head];
    let at = (t * p.heads + head) * p.headDim + mine;
    let input = step.x * x[at];
    var sum = vec4f();
    for (var n = 0u; n < QUADS; n++) {
      s[n] = step.y * s[n] + input * bs[n];
      sum += s[n] * cs[n];
    }
    if (row < p.headDim) { y[at] = dot(sum, vec4f(1.0)) + D[head] * x[at]; }
  }
  if (row < p.headDim) {
    let after = p.tokens * p.heads * p.headDim + held;
    for (var n = 0u; n < STATE; n++) { y[after + n] = s[n / 4u][n % 4u]; }
  }
}`;

/** Converts the state to the layout of the chunked form: rows of four-column vectors. */
function loadStatePass({ heads, headDim, state }: SsdParams): Pass {
  const count = heads * headDim * Math.ceil(state / 4);
  const body = `
  let n = 4u * (i % QUADS);
  let held = i / QUADS * STATE;
  for (var c = 0u; c < 4u; c++) { states[i][c] = select(0.0, before[held + min(n + c, STATE - 1u)], n + c < STATE); }`;
  return {
    reads: { before: "f32" },
    writes: { states: "vec4f" },
    u32: { count },
    code: `${stateConstants(state)}\n${elementShader(body)}`,
    workgroups: elementWorkgroups(count),
  };
}

/** Writes the state back after the outputs. */
function storeStatePass({ tokens, heads, headDim, state }: SsdParams): Pass {
  const count = heads * headDim * state;
  return {
    reads: { states: "vec4f" },
    writes: { y: "f32" },
    u32: { count, after: tokens * heads * headDim },
    code: `${stateConstants(state)}\n${elementShader("y[p.after + i] = states[i / STATE * QUADS + i % STATE / 4u][i % STATE % 4u];")}`,
    workgroups: elementWorkgroups(count),
  };
}

export const ssdStepWgsl: WgslForm<SsdParams> = {
  passes(p) {
    if (p.tokens >= MIN_CHUNKED_TOKENS)
      return [loadStatePass(p), ...chunkedPasses(p, "before"), storeStatePass(p)];
    return [
      stepsPass(p),
      {
        reads: { x: "f32", B: "f32", C: "f32", D: "f32", steps: "vec4f", before: "f32" },
        writes: { y: "f32" },
        ...scanUniforms(p),
        code: recurrenceCode(p.state),
        workgroups: [p.heads, Math.ceil(p.headDim / THREADS), 1],
      },
    ];
  },
  scratch: (p): Readonly<Record<string, number>> =>
    p.tokens < MIN_CHUNKED_TOKENS ? { steps: stepsBytes(p) } : chunkedBytes(p),
  bound: scanBound,
};
