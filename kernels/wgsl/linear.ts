/**
 * A band of a matrix times the tokens, in two forms. Up to four tokens: a workgroup computes four rows, its threads
 * divide the columns, and every weight is loaded once (memory bandwidth is the limit). More tokens: tiles of 64 rows by
 * 16 or 64 tokens are loaded into workgroup memory as F32 (arithmetic is the limit).
 *
 * The order of additions depends on the columns and on the form only, so a row has the same bits in every band.
 */

import type { LinearParams } from "../definitions/linear.ts";
import { type Extensions, ROUNDING, type WgslForm } from "../kernel.ts";
import { storedLoader } from "./decode.ts";
import { quadLoader } from "./quads.ts";
import { additionsOf, reductionCode } from "./reduce.ts";

const FEW = 4;
const FEW_THREADS = 64;
const FEW_ROWS = 4;
const TILE_ROWS = 64;
/** groups of four columns in a step; sums over BLOCK_STEPS steps are added separately, which is more accurate */
const TILE_QUADS = 4;
const BLOCK_STEPS = 8;
const BLOCK = 4 * TILE_QUADS * BLOCK_STEPS;
/** Above this number a tile has 64 tokens; with fewer tokens such large tiles would not use all processors of a GPU. */
const MANY = 128;

interface Shape {
  readonly tokens: number;
  readonly aligned: boolean;
}

const shapeOf = ({ tokens, cols, inWidth, inFrom }: LinearParams): Shape => ({
  tokens: tokens <= FEW ? [1, 1, 2, 4, 4][tokens]! : tokens <= MANY ? 16 : 64,
  aligned: [cols, inWidth, inFrom].every((count) => count % 4 === 0),
});

/** Missing rows and tokens of a workgroup repeat the last ones; their results are not stored. */
const LOADS = `
fn weights(row: u32, k: u32) -> vec4f {
  let at = (p.firstRow + min(row, p.rows - 1u)) * p.cols + k;
  let four = bitcast<vec4f>(storedBits(at));
  return select(vec4f(), four, vec4u(0u, 1u, 2u, 3u) < vec4u(p.cols - k));
}
fn inputs(token: u32, k: u32) -> vec4f {
  return x4(min(token, p.tokens - 1u) * p.inWidth + p.inFrom + k, p.cols - k);
}
fn store(token: u32, row: u32, sum: f32) {
  if (token < p.tokens && row < p.rows) { out[token * p.outWidth + p.outFrom + row] = p.scale * sum; }
}`;

/** Each thread sums four rows for each token; then the sums of all threads are added. */
const fewTokensCode = (tokens: number, extensions: Extensions): string => `
const TOKENS = ${tokens}u;
${reductionCode({ threads: FEW_THREADS, type: "vec4f", count: tokens, operations: ["sumOf"] }, extensions)}

@compute @workgroup_size(${FEW_THREADS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, lane: Lane) {
  let row = (group.y * groups.x + group.x) * ${FEW_ROWS}u;
  var sums: array<array<vec4f, ${FEW_ROWS}>, TOKENS>;
  for (var k = 4u * lane.index; k < p.cols; k += ${4 * FEW_THREADS}u) {
    var w: array<vec4f, ${FEW_ROWS}>;
    for (var r = 0u; r < ${FEW_ROWS}u; r++) { w[r] = weights(row + r, k); }
    for (var t = 0u; t < TOKENS; t++) {
      let x = inputs(t, k);
      for (var r = 0u; r < ${FEW_ROWS}u; r++) { sums[t][r] += w[r] * x; }
    }
  }
  var own: array<vec4f, TOKENS>;
  for (var t = 0u; t < TOKENS; t++) {
    let one = vec4f(1.0);
    own[t] = vec4f(dot(sums[t][0], one), dot(sums[t][1], one), dot(sums[t][2], one), dot(sums[t][3], one));
  }
  let all = sumOf(lane, own);
  if (lane.index < ${FEW_ROWS}u) {
    for (var t = 0u; t < TOKENS; t++) { store(t, row + lane.index, all[t][lane.index]); }
  }
}`;

/**
 * 16 x 16 threads. The rows and tokens of a thread are 16 apart, so that neighbouring threads access neighbouring
 * elements. The quads of a row are PITCH apart, one more than the number of rows, which avoids bank conflicts.
 */
const tiledCode = (tokens: number): string => `
const SPAN = ${tokens / 16}u;
const PITCH = ${TILE_ROWS + 1}u;
var<workgroup> wTile: array<vec4f, ${TILE_QUADS * (TILE_ROWS + 1)}>;
var<workgroup> xTile: array<vec4f, ${TILE_QUADS * (TILE_ROWS + 1)}>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let firstRow = group.x * ${TILE_ROWS}u;
  let firstToken = group.y * ${tokens}u;
  let quad = lane % ${TILE_QUADS}u;
  let line = lane / ${TILE_QUADS}u;
  let r = lane % 16u;
  let t = lane / 16u;
  var total: array<vec4f, SPAN>;
  for (var block = 0u; block < p.cols; block += ${BLOCK}u) {
    var sums = array<vec4f, SPAN>();
    for (var k = block; k < min(block + ${BLOCK}u, p.cols); k += ${4 * TILE_QUADS}u) {
      let mine = k + 4u * quad;
      var w = vec4f();
      var x = vec4f();
      if (mine < p.cols) {
        w = weights(firstRow + line, mine);
        if (line < ${tokens}u) { x = inputs(firstToken + line, mine); }
      }
      workgroupBarrier();
      wTile[quad * PITCH + line] = w;
      xTile[quad * PITCH + line] = x;
      workgroupBarrier();
      for (var q = 0u; q < ${TILE_QUADS}u; q++) {
        let at = q * PITCH + r;
        let w0 = wTile[at];
        let w1 = wTile[at + 16u];
        let w2 = wTile[at + 32u];
        let w3 = wTile[at + 48u];
        for (var s = 0u; s < SPAN; s++) {
          let x = xTile[q * PITCH + t + 16u * s];
          sums[s] += vec4f(dot(w0, x), dot(w1, x), dot(w2, x), dot(w3, x));
        }
      }
    }
    for (var s = 0u; s < SPAN; s++) { total[s] += sums[s]; }
  }
  for (var s = 0u; s < SPAN; s++) {
    for (var i = 0u; i < 4u; i++) { store(firstToken + t + 16u * s, firstRow + r + 16u * i, total[s][i]); }
  }
}`;

function workgroupsOf({ rows, tokens }: LinearParams, shape: Shape): readonly [number, number, number] {
  if (shape.tokens > FEW) return [Math.ceil(rows / TILE_ROWS), Math.ceil(tokens / shape.tokens), 1];
  const groups = Math.ceil(rows / FEW_ROWS);
  return [Math.min(groups, 32768), Math.ceil(groups / 32768), 1];
}

/** Roundings of a term: its product, its additions, the scale. */
function roundingsOf({ cols, tokens }: LinearParams, extensions: Extensions): number {
  if (tokens <= FEW)
    return 1 + Math.ceil(cols / (4 * FEW_THREADS)) + 3 + additionsOf(FEW_THREADS, extensions) + 1;
  return 1 + 3 + Math.ceil(Math.min(cols, BLOCK) / 4) + Math.ceil(cols / BLOCK) + 1;
}

export const linearWgsl: WgslForm<LinearParams> = {
  passes(p, extensions) {
    const shape = shapeOf(p);
    const weight = storedLoader(p.dtype, "weight", shape.aligned);
    const x = quadLoader("x4", "x", shape.aligned);
    const { tokens, rows, cols, firstRow, inWidth, inFrom, outWidth, outFrom } = p;
    return [
      {
        reads: { weight: weight.type, x: x.type },
        writes: { out: "f32" },
        u32: { tokens, rows, cols, firstRow, inWidth, inFrom, outWidth, outFrom },
        f32: { scale: p.scale },
        code: [
          weight.code,
          x.code,
          LOADS,
          shape.tokens <= FEW ? fewTokensCode(shape.tokens, extensions) : tiledCode(shape.tokens),
        ].join("\n"),
        workgroups: workgroupsOf(p, shape),
      },
    ];
  },
  // As `linear.bound`, with the roundings of this form.
  bound: (p, extensions) => roundingsOf(p, extensions) * (1 + Math.sqrt(p.cols) / 2) * ROUNDING,
};
