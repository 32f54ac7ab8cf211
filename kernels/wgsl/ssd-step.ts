/**
 * The Mamba-2 scan from a state to a state: the recurrence, a thread a row of a head's state, whatever the number of
 * tokens. Steps are made by a pass of their own, for a shader binds eight arrays and no more.
 */
import { ROUNDING, type WgslForm } from "../define.ts";
import type { SsdParams } from "../ssd.ts";
import { SOFTPLUS } from "./elementary.ts";
import { quadOf, stateOf, stepsBytes, stepsPass, THREADS, uniformsOf } from "./ssd.ts";

const codeOf = (state: number): string => `
${stateOf(state)}
${quadOf("b4", "B")}
${quadOf("c4", "C")}
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

export const ssdStepWgsl: WgslForm<SsdParams> = {
  passes: (p) => [
    stepsPass(p),
    {
      reads: { x: "f32", B: "f32", C: "f32", D: "f32", steps: "vec4f", before: "f32" },
      writes: { y: "f32" },
      ...uniformsOf(p),
      code: codeOf(p.state),
      workgroups: [p.heads, Math.ceil(p.headDim / THREADS), 1],
    },
  ],
  scratch: (p) => ({ steps: stepsBytes(p) }),
  bound: ({ tokens, state }) =>
    (SOFTPLUS + 2 + 5 * tokens + state / 4 + 3) * (1 + Math.sqrt(state) / 2) * ROUNDING,
};
