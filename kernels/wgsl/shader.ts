/**
 * Common parts of all shaders: declarations, and the division of elements among threads.
 *
 * Every shader sets arrays that are declared inside a loop to zeros explicitly: WGSL requires zeros in each iteration,
 * but SwiftShader leaves the values of the iteration before.
 */
import type { Extensions, Pass } from "../kernel.ts";

/** The complete shader of a pass, for a device with these extensions. Passes with equal text share a pipeline. */
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

/** The values of the uniform `p` of a pass. */
export function uniformNumbers({ u32, f32 = {} }: Pass): Uint32Array {
  const floats = new Uint32Array(Float32Array.from(Object.values(f32)).buffer);
  return Uint32Array.from([...Object.values(u32), ...floats]);
}

const THREADS = 256;
/** A dispatch has at most 65,535 workgroups in each dimension. */
const ACROSS = 32768;

/** At least `count` workgroups, at most ACROSS - 1 more: the number of a workgroup is group.y * groups.x + group.x. */
export const workgroupsFor = (count: number): readonly [number, number, number] => [
  Math.min(count, ACROSS),
  Math.ceil(count / ACROSS),
  1,
];

/** Workgroups for one element in each thread. */
export const elementWorkgroups = (count: number): readonly [number, number, number] =>
  workgroupsFor(Math.ceil(count / THREADS));

/** A shader that runs `body` for each element `i` below `p.count`. */
export const elementShader = (body: string): string => `
@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.y * groups.x * ${THREADS}u + id.x;
  if (i >= p.count) { return; }
  ${body}
}`;
