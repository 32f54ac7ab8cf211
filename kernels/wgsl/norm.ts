/** Root-mean-square norms: a workgroup a row (of a token, or of one of its groups). */
import { ROUNDING, type WgslForm } from "../define.ts";
import type { GatedNormParams } from "../gated-norm.ts";
import type { RmsNormParams } from "../rms-norm.ts";
import { DIVISION, INVERSE_ROOT, SILU, SILU_WGSL } from "./elementary.ts";

const THREADS = 256;
/** Additions on a square's way into its sum, with the one that made it. */
const summed = (width: number): number => Math.ceil(width / THREADS) + Math.log2(THREADS) + 1;

/** Roundings of a norm's result when its elements come with `before`: the mean's error counts half under the root. */
const normed = (width: number, before: number): number =>
  before + (2 * before + summed(width) + DIVISION + 1) / 2 + INVERSE_ROOT + 2;

/**
 * Elements [first, first + p.width) of `array` to `out`: normed, times the gain of their column. Squares of elements
 * beyond 2^55 would overflow a sum: such a row is scaled down first, by a power of two, and its eps is nothing then.
 */
const normRow = (array: string): string => `
var<workgroup> part: array<f32, ${THREADS}>;

fn sumOf(lane: u32, value: f32) -> f32 {
  part[lane] = value;
  workgroupBarrier();
  for (var half = ${THREADS / 2}u; half > 0u; half >>= 1u) {
    if (lane < half) { part[lane] += part[lane + half]; }
    workgroupBarrier();
  }
  return workgroupUniformLoad(&part[0]);
}

fn peakOf(lane: u32, value: f32) -> f32 {
  part[lane] = value;
  workgroupBarrier();
  for (var half = ${THREADS / 2}u; half > 0u; half >>= 1u) {
    if (lane < half) { part[lane] = max(part[lane], part[lane + half]); }
    workgroupBarrier();
  }
  return workgroupUniformLoad(&part[0]);
}

fn normRow(first: u32, firstColumn: u32, lane: u32) {
  var peak = 0.0;
  for (var i = lane; i < p.width; i += ${THREADS}u) { peak = max(peak, abs(${array}[first + i])); }
  let down = select(1.0, 0x1p-100, peakOf(lane, peak) > 0x1p+55);
  var sum = 0.0;
  for (var i = lane; i < p.width; i += ${THREADS}u) {
    let v = ${array}[first + i] * down;
    sum += v * v;
  }
  let mean = sumOf(lane, sum) / f32(p.width);
  let factor = inverseSqrt(mean + p.eps * down * down);
  for (var i = lane; i < p.width; i += ${THREADS}u) {
    out[first + i] = gain[firstColumn + i] * (${array}[first + i] * down * factor);
  }
}`;

const RMS = `${normRow("x")}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  normRow(group.x * p.width, 0u, lane);
}`;

export const rmsNormWgsl: WgslForm<RmsNormParams> = {
  passes: ({ tokens, width, eps }) => [
    {
      reads: { x: "f32", gain: "f32" },
      writes: { out: "f32" },
      u32: { width },
      f32: { eps },
      code: RMS,
      workgroups: [tokens, 1, 1],
    },
  ],
  bound: ({ width }) => normed(width, 0) * ROUNDING,
};

/** A thread reads back only what it wrote itself: both loops deal elements alike. */
const GATED = `${SILU_WGSL}
${normRow("out")}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32) {
  let first = (group.y * groups.x + group.x) * p.width;
  for (var i = first + lane; i < first + p.width; i += ${THREADS}u) { out[i] = y[i] * siluOf(z[i]); }
  normRow(first, group.x * p.width, lane);
}`;

export const gatedNormWgsl: WgslForm<GatedNormParams> = {
  passes: ({ tokens, width, groups, eps }) => [
    {
      reads: { y: "f32", z: "f32", gain: "f32" },
      writes: { out: "f32" },
      u32: { width: width / groups },
      f32: { eps },
      code: GATED,
      workgroups: [groups, tokens, 1],
    },
  ],
  bound: ({ width, groups }) => normed(width / groups, SILU + 1) * ROUNDING,
};
