/** Root-mean-square norms: one row (a token, or a group of a token) in each workgroup. */

import type { GatedNormParams, RmsNormParams } from "../definitions/norm.ts";
import { type Extensions, ROUNDING, type WgslForm } from "../kernel.ts";
import { DIVISION_ROUNDINGS, INVERSE_ROOT_ROUNDINGS, SILU_ROUNDINGS, SILU_WGSL } from "./elementary.ts";
import { additionsOf, reductionCode } from "./reduce.ts";

const THREADS = 256;
/** Roundings of a term in the sum of squares: its additions and the square. */
const sumRoundings = (width: number, extensions: Extensions): number =>
  Math.ceil(width / THREADS) + additionsOf(THREADS, extensions) + 1;

/** Roundings of the result, if its elements have `before` roundings: the square root halves the error of the mean. */
const normRoundings = (width: number, before: number, extensions: Extensions): number =>
  before +
  (2 * before + sumRoundings(width, extensions) + DIVISION_ROUNDINGS + 1) / 2 +
  INVERSE_ROOT_ROUNDINGS +
  2;

/**
 * Writes the norm of elements [first, first + p.width) of `array`, times the gain of each column, to `out`. The squares
 * of elements above 2^55 would overflow the sum: such a row is first scaled by a power of two, and eps becomes
 * negligible.
 */
const normRowCode = (array: string, extensions: Extensions): string => `
${reductionCode({ threads: THREADS, type: "f32", count: 1, operations: ["sumOf", "peakOf"] }, extensions)}

fn normRow(first: u32, firstColumn: u32, lane: Lane) {
  var peak = 0.0;
  for (var i = lane.index; i < p.width; i += ${THREADS}u) { peak = max(peak, abs(${array}[first + i])); }
  let down = select(1.0, 0x1p-100, peakOf(lane, array(peak))[0] > 0x1p+55);
  var sum = 0.0;
  for (var i = lane.index; i < p.width; i += ${THREADS}u) {
    let v = ${array}[first + i] * down;
    sum += v * v;
  }
  let mean = sumOf(lane, array(sum))[0] / f32(p.width);
  let factor = inverseSqrt(mean + p.eps * down * down);
  for (var i = lane.index; i < p.width; i += ${THREADS}u) {
    out[first + i] = gain[firstColumn + i] * (${array}[first + i] * down * factor);
  }
}`;

const rmsCode = (extensions: Extensions): string => `${normRowCode("x", extensions)}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3u, lane: Lane) {
  normRow(group.x * p.width, 0u, lane);
}`;

export const rmsNormWgsl: WgslForm<RmsNormParams> = {
  passes: ({ tokens, width, eps }, extensions) => [
    {
      reads: { x: "f32", gain: "f32" },
      writes: { out: "f32" },
      u32: { width },
      f32: { eps },
      code: rmsCode(extensions),
      workgroups: [tokens, 1, 1],
    },
  ],
  bound: ({ width }, extensions) => normRoundings(width, 0, extensions) * ROUNDING,
};

/** Each thread reads only elements that it wrote itself: both loops divide the elements in the same way. */
const gatedCode = (extensions: Extensions): string => `${SILU_WGSL}
${normRowCode("out", extensions)}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, lane: Lane) {
  let first = (group.y * groups.x + group.x) * p.width;
  for (var i = first + lane.index; i < first + p.width; i += ${THREADS}u) { out[i] = y[i] * siluOf(z[i]); }
  normRow(first, group.x * p.width, lane);
}`;

export const gatedNormWgsl: WgslForm<GatedNormParams> = {
  passes: ({ tokens, width, groups, eps }, extensions) => [
    {
      reads: { y: "f32", z: "f32", gain: "f32" },
      writes: { out: "f32" },
      u32: { width: width / groups },
      f32: { eps },
      code: gatedCode(extensions),
      workgroups: [groups, tokens, 1],
    },
  ],
  bound: ({ width, groups }, extensions) =>
    normRoundings(width / groups, SILU_ROUNDINGS + 1, extensions) * ROUNDING,
};
