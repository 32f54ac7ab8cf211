/** Norms: one row (a token, or a group of a token) in each workgroup. */

import type { GatedNormParams, LayerNormParams, RmsNormParams } from "../definitions/norm.ts";
import { type Extensions, ROUNDING, type WgslForm } from "../kernel.ts";
import { DIVISION_ROUNDINGS, INVERSE_ROOT_ROUNDINGS, SILU_ROUNDINGS, SILU_WGSL } from "./elementary.ts";
import { additionsOf, reductionCode } from "./reduce.ts";
import { workgroupsFor } from "./shader.ts";

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
 * `downOf`: the factor of elements [first, first + p.width) of `array` before their squares are added. The squares of
 * elements above 2^55 would overflow the sum: such a row is scaled by a power of two, and eps becomes negligible.
 */
const downCode = (array: string, extensions: Extensions): string => `
${reductionCode({ threads: THREADS, type: "f32", count: 1, operations: ["sumOf", "peakOf"] }, extensions)}

fn downOf(first: u32, lane: Lane) -> f32 {
  var peak = 0.0;
  for (var i = lane.index; i < p.width; i += ${THREADS}u) { peak = max(peak, abs(${array}[first + i])); }
  return select(1.0, 0x1p-100, peakOf(lane, array(peak))[0] > 0x1p+55);
}`;

/** Writes the norm of elements [first, first + p.width) of `array`, times the gain of each column, to `out`. */
const normRowCode = (array: string, extensions: Extensions): string => `
${downCode(array, extensions)}

fn normRow(first: u32, firstColumn: u32, lane: Lane) {
  let down = downOf(first, lane);
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

/** The beginning of `main` for the token whose elements begin with `first`. */
const TOKEN_MAIN = `
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, lane: Lane) {
  let token = group.y * groups.x + group.x;
  if (token >= p.tokens) { return; }
  let first = token * p.width;`;

const rmsCode = (extensions: Extensions): string => `${normRowCode("x", extensions)}
${TOKEN_MAIN}
  normRow(first, 0u, lane);
}`;

export const rmsNormWgsl: WgslForm<RmsNormParams> = {
  passes: ({ tokens, width, eps }, extensions) => [
    {
      reads: { x: "f32", gain: "f32" },
      writes: { out: "f32" },
      u32: { width, tokens },
      f32: { eps },
      code: rmsCode(extensions),
      workgroups: workgroupsFor(tokens),
    },
  ],
  bound: ({ width }, extensions) => normRoundings(width, 0, extensions) * ROUNDING,
};

/**
 * The mean of the differences from a rounded mean corrects the differences: without this their error would grow with the
 * distance of the mean from zero.
 */
const layerCode = (extensions: Extensions): string => `
${downCode("x", extensions)}
${TOKEN_MAIN}
  let down = downOf(first, lane);
  var sum = 0.0;
  for (var i = lane.index; i < p.width; i += ${THREADS}u) { sum += x[first + i] * down; }
  let mean = sumOf(lane, array(sum))[0] / f32(p.width);
  sum = 0.0;
  for (var i = lane.index; i < p.width; i += ${THREADS}u) { sum += x[first + i] * down - mean; }
  let rest = sumOf(lane, array(sum))[0] / f32(p.width);
  sum = 0.0;
  for (var i = lane.index; i < p.width; i += ${THREADS}u) {
    let v = (x[first + i] * down - mean) - rest;
    sum += v * v;
  }
  let variance = sumOf(lane, array(sum))[0] / f32(p.width);
  let factor = inverseSqrt(variance + p.eps * down * down);
  for (var i = lane.index; i < p.width; i += ${THREADS}u) {
    let v = (x[first + i] * down - mean) - rest;
    out[first + i] = (gain[i] + p.shift) * (v * factor) + bias[i];
  }
}`;

export const layerNormWgsl: WgslForm<LayerNormParams> = {
  passes: ({ tokens, width, eps, zeroCentered }, extensions) => [
    {
      reads: { x: "f32", gain: "f32", bias: "f32" },
      writes: { out: "f32" },
      u32: { width, tokens },
      f32: { eps, shift: zeroCentered ? 1 : 0 },
      code: layerCode(extensions),
      workgroups: workgroupsFor(tokens),
    },
  ],
  // A difference has two roundings; the mean of the differences has those of its sum, its quotient and one difference,
  // relative to the standard deviation. The shift and the bias add 2. All this is relative to |gain x| + |bias|, x
  // normalised but at least 1, which is assumed to be at most twice the largest |out|.
  bound({ width }, extensions) {
    const before = 2 + sumRoundings(width, extensions) + DIVISION_ROUNDINGS;
    return 2 * (normRoundings(width, before, extensions) + 2) * ROUNDING;
  },
};

/** Each thread reads only elements that it wrote itself: all loops divide the elements in the same way. */
const gatedCode = (normFirst: boolean, extensions: Extensions): string => `${SILU_WGSL}
${normRowCode(normFirst ? "y" : "out", extensions)}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, lane: Lane) {
  let first = (group.y * groups.x + group.x) * p.width;
  ${normFirst ? NORM_GROUP : ""}
  for (var i = first + lane.index; i < first + p.width; i += ${THREADS}u) {
    out[i] = ${normFirst ? "out" : "y"}[i] * siluOf(z[i]);
  }
  ${normFirst ? "" : NORM_GROUP}
}`;
const NORM_GROUP = "normRow(first, group.x * p.width, lane);";

export const gatedNormWgsl: WgslForm<GatedNormParams> = {
  passes: ({ tokens, width, groups, eps, normFirst }, extensions) => [
    {
      reads: { y: "f32", z: "f32", gain: "f32" },
      writes: { out: "f32" },
      u32: { width: width / groups },
      f32: { eps },
      code: gatedCode(normFirst, extensions),
      workgroups: [groups, tokens, 1],
    },
  ],
  bound({ width, groups, normFirst }, extensions) {
    const gate = SILU_ROUNDINGS + 1;
    const run = width / groups;
    return (
      ROUNDING * (normFirst ? normRoundings(run, 0, extensions) + gate : normRoundings(run, gate, extensions))
    );
  },
};
