/**
 * Sums and maxima over a workgroup. Plainly: a tree in workgroup memory, a barrier a level. With subgroups: each makes
 * its own, of whatever size and threads it is, and every thread goes over what they made, in their order.
 */
import type { Extensions } from "../kernel.ts";

/** Sizes that WGSL lets a subgroup have: powers of two between. */
const [LEAST, MOST] = [4, 128];

const OPERATIONS = {
  sumOf: { over: "subgroupAdd", pair: (a: string, b: string) => `${a} + ${b}` },
  peakOf: { over: "subgroupMax", pair: (a: string, b: string) => `max(${a}, ${b})` },
};

interface Reduction {
  readonly threads: number;
  /** of an element: f32, or a vector of them */
  readonly type: string;
  /** elements that are reduced at once, each apart */
  readonly count: number;
  readonly operations: readonly (keyof typeof OPERATIONS)[];
}

/**
 * WGSL for `struct Lane`, a parameter of `main`, whose `index` is the thread's place in the workgroup; and for
 * `sumOf(lane, own)` or `peakOf`: of the arrays that all threads give, the same for each. Called where all threads are.
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
 * Additions that a thread's element passes on its way into `sumOf`. Nothing is said of the order within a subgroup: it
 * may be one after another, and that is most where subgroups are largest.
 */
export function additionsOf(threads: number, extensions: Extensions): number {
  if (!extensions.includes("subgroups")) return Math.log2(threads);
  const size = Math.min(threads, MOST);
  return size - 1 + threads / size - 1;
}
