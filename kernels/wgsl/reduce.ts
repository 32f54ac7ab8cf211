/**
 * Sums and maxima over a workgroup. The plain form is a tree in workgroup memory with a barrier at each level. With the
 * extension "subgroups" each subgroup, of any size, computes its result, and every thread combines these in order.
 */
import type { Extensions } from "../kernel.ts";

/** The smallest and largest size of a subgroup in WGSL; sizes are powers of two. */
const [LEAST, MOST] = [4, 128];

const OPERATIONS = {
  sumOf: { over: "subgroupAdd", pair: (a: string, b: string) => `${a} + ${b}` },
  peakOf: { over: "subgroupMax", pair: (a: string, b: string) => `max(${a}, ${b})` },
};

interface Reduction {
  readonly threads: number;
  /** WGSL type of an element: f32 or a vector of f32 */
  readonly type: string;
  /** number of separate reductions at once */
  readonly count: number;
  readonly operations: readonly (keyof typeof OPERATIONS)[];
}

/**
 * WGSL that defines `struct Lane`, a parameter of `main` with the `index` of the thread in the workgroup, and
 * `sumOf(lane, own)` and `peakOf(lane, own)`: sums and maxima of the arrays of all threads. All threads must call them
 * together; all get the same result.
 */
export function reductionCode(reduction: Reduction, extensions: Extensions): string {
  const { threads, type, count, operations } = reduction;
  const array = `array<${type}, ${count}>`;
  const [lane, slots, body] = extensions.includes("subgroups")
    ? ([IN_SUBGROUP, threads / LEAST, bySubgroups] as const)
    : (["", threads, byTree] as const);
  return `
struct Lane { @builtin(local_invocation_index) index: u32,${lane} }
var<workgroup> part: array<${array}, ${slots}>;
${operations.map((name) => `fn ${name}(lane: Lane, own: ${array}) -> ${array} {${body(reduction, name)}}`).join("\n")}`;
}

const byTree = ({ threads, count }: Reduction, name: keyof typeof OPERATIONS): string => `
  part[lane.index] = own;
  for (var half = ${threads / 2}u; half > 0u; half >>= 1u) {
    workgroupBarrier();
    if (lane.index < half) {
      for (var i = 0u; i < ${count}u; i++) {
        part[lane.index][i] = ${OPERATIONS[name].pair("part[lane.index][i]", "part[lane.index + half][i]")};
      }
    }
  }
  workgroupBarrier();
  let all = part[0];
  workgroupBarrier();
  return all;
`;

const IN_SUBGROUP = " @builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) subgroups: u32";

const bySubgroups = ({ count }: Reduction, name: keyof typeof OPERATIONS): string => `
  var all = own;
  for (var i = 0u; i < ${count}u; i++) { all[i] = ${OPERATIONS[name].over}(own[i]); }
  if (subgroupElect()) { part[lane.subgroup] = all; }
  workgroupBarrier();
  all = part[0];
  for (var s = 1u; s < lane.subgroups; s++) {
    for (var i = 0u; i < ${count}u; i++) { all[i] = ${OPERATIONS[name].pair("all[i]", "part[s][i]")}; }
  }
  workgroupBarrier();
  return all;
`;

/**
 * The largest number of additions of an element in `sumOf`. WGSL does not define the order within a subgroup; adding
 * one element after another takes the most additions, most of all in the largest subgroup.
 */
export function additionsOf(threads: number, extensions: Extensions): number {
  if (!extensions.includes("subgroups")) return Math.log2(threads);
  const size = Math.min(threads, MOST);
  return size - 1 + threads / size - 1;
}
