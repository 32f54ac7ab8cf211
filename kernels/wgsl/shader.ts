/**
 * What every shader shares: its declarations, and how threads are dealt over elements.
 *
 * Arrays declared inside a loop are set to zeros by hand everywhere: WGSL promises it at each turn, but SwiftShader keeps
 * what they held in the turn before.
 */
import type { Extensions, Pass } from "../kernel.ts";

/** The whole text of a pass, for a device of these extensions. Two passes of one text are one pipeline. */
export function shaderText({ reads, writes, u32, f32 = {}, code }: Pass, extensions: Extensions): string {
  const fields = [
    ...Object.keys(u32).map((name) => `${name}: u32`),
    ...Object.keys(f32).map((name) => `${name}: f32`),
  ];
  const arrays = [
    ...Object.entries(reads).map(([name, type]) => `var<storage, read> ${name}: array<${type}>;`),
    ...Object.entries(writes).map(([name, type]) => `var<storage, read_write> ${name}: array<${type}>;`),
  ];
  return [
    ...extensions.map((extension) => `enable ${extension};`),
    `struct Numbers { ${fields.join(", ")} }`,
    "@group(0) @binding(0) var<uniform> p: Numbers;",
    ...arrays.map((declaration, i) => `@group(0) @binding(${i + 1}) ${declaration}`),
    code,
  ].join("\n");
}

/** The uniform `p` of a pass. */
export function uniformNumbers({ u32, f32 = {} }: Pass): Uint32Array {
  const floats = new Uint32Array(Float32Array.from(Object.values(f32)).buffer);
  return Uint32Array.from([...Object.values(u32), ...floats]);
}

const THREADS = 256;
/** A dispatch has at most 65,535 workgroups a dimension. */
const ACROSS = 32768;

/** Workgroups for one thread an element. */
export function elementWorkgroups(count: number): readonly [number, number, number] {
  const groups = Math.ceil(count / THREADS);
  return [Math.min(groups, ACROSS), Math.ceil(groups / ACROSS), 1];
}

/** A shader that runs `body` for each element `i` below `p.count`. */
export const elementShader = (body: string): string => `
@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.y * groups.x * ${THREADS}u + id.x;
  if (i >= p.count) { return; }
  ${body}
}`;
