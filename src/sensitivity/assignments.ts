/**
 * Which types of tensors are worth a measurement. The divergence of a tensor alone, at its smallest type, was measured; that of
 * its other types follows from the error of the types, because a divergence grows with the square of an error.
 */
import { bytesOf, type DType } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import type { Assignment, TypedTensor } from "./typed-tensors.ts";

/** Relative L2 error of normally distributed weights, by type. */
const ERRORS: Readonly<Partial<Record<DType, number>>> = {
  Q4_0: 0.0905,
  Q4_1: 0.0796,
  Q5_0: 0.0441,
  Q5_1: 0.0386,
  Q8_0: 0.0052,
  Q4_K: 0.0757,
  Q5_K: 0.0371,
  Q6_K: 0.0181,
  F16: 0.0002,
};

/** A type of a tensor. */
interface Rung {
  readonly bytes: number;
  /** expected divergence, nats */
  readonly divergence: number;
}

/** The rungs of every tensor. */
export type Ladders = readonly (readonly Rung[])[];

/**
 * @param alone    measured divergence of each tensor at its smallest type
 * @param exponent below 1: differences between tensors count less, because a measurement is one sample
 */
export function laddersOf(
  tensors: readonly TypedTensor[],
  alone: readonly number[],
  exponent: number,
): Ladders {
  return tensors.map(({ types, shape }, i) => {
    const divergence = Math.max(alone[i]!, Number.MIN_VALUE) ** exponent;
    return types.map((dtype) => ({
      bytes: bytesOf(dtype, shape),
      divergence: divergence * (errorOf(dtype) / errorOf(types[0]!)) ** 2,
    }));
  });
}

function errorOf(dtype: DType): number {
  const error = ERRORS[dtype];
  if (error === undefined) throw new IsologitError("INTERNAL", `the error of ${dtype} is not known`);
  return error;
}

/** A tensor gets a larger type. */
interface Step {
  readonly tensor: number;
  readonly from: number;
  readonly to: number;
  readonly bytes: number;
  /** divergence that it saves */
  readonly saved: number;
}

/** The steps of all tensors from their smallest types, those that save most divergence for a byte first. */
function stepsOf(ladders: Ladders): readonly Step[] {
  const steps = ladders.flatMap((rungs, tensor) => {
    const own: Step[] = [];
    for (let from = 0; from < rungs.length - 1; from = own.at(-1)!.to) {
      let best: Step | undefined;
      for (let to = from + 1; to < rungs.length; to++) {
        const bytes = rungs[to]!.bytes - rungs[from]!.bytes;
        const saved = rungs[from]!.divergence - rungs[to]!.divergence;
        if (best === undefined || saved / bytes > best.saved / best.bytes)
          best = { tensor, from, to, bytes, saved };
      }
      own.push(best!);
    }
    return own;
  });
  return steps.sort((a, b) => b.saved / b.bytes - a.saved / a.bytes);
}

/** From the smallest types of all to the largest of all, a step at a time. */
export function pathOf(ladders: Ladders): readonly Assignment[] {
  const path: number[][] = [ladders.map(() => 0)];
  for (const { tensor, to } of stepsOf(ladders)) {
    const next = [...path.at(-1)!];
    next[tensor] = to;
    path.push(next);
  }
  return path;
}

export const bytesWith = (ladders: Ladders, assignment: Assignment): number =>
  ladders.reduce((sum, rungs, i) => sum + rungs[assignment[i]!]!.bytes, 0);

const divergenceWith = (ladders: Ladders, assignment: Assignment): number =>
  ladders.reduce((sum, rungs, i) => sum + rungs[assignment[i]!]!.divergence, 0);

/** Takes larger types from an assignment on, the best steps first, as long as all tensors together have at most `most` bytes. */
export function fillSize(ladders: Ladders, from: Assignment, most: number): Assignment {
  const rungs = [...from];
  let left = most - bytesWith(ladders, from);
  for (const { tensor, to } of stepsOf(ladders)) {
    if (to <= rungs[tensor]!) continue;
    const bytes = ladders[tensor]![to]!.bytes - ladders[tensor]![rungs[tensor]!]!.bytes;
    if (bytes > left) continue;
    rungs[tensor] = to;
    left -= bytes;
  }
  return rungs;
}

/**
 * Assignments near another one, of at most `most` bytes: one tensor gets its next larger or smaller type; others pay for it, or
 * get what it leaves.
 *
 * @returns those with the least expected divergence first
 */
export function neighboursOf(ladders: Ladders, start: Assignment, most: number): readonly Assignment[] {
  const found: Assignment[] = [];
  for (const [tensor, rungs] of ladders.entries()) {
    const own = start[tensor]!;
    for (const rung of [own - 1, own + 1]) {
      if (rung < 0 || rung >= rungs.length) continue;
      const changed = withRung(start, tensor, rung);
      const paid = rung > own ? reduced(ladders, changed, most, tensor) : changed;
      if (paid === null) continue;
      const rest = fillSize(ladders, paid, most);
      found.push(rest[tensor] === own ? paid : rest);
    }
  }
  return found.sort((a, b) => divergenceWith(ladders, a) - divergenceWith(ladders, b));
}

/** Takes smaller types until an assignment has at most `most` bytes; null if it cannot. `held` keeps its type. */
function reduced(ladders: Ladders, from: Assignment, most: number, held: number): Assignment | null {
  let assignment = from;
  while (bytesWith(ladders, assignment) > most) {
    const next = cheapestReduction(ladders, assignment, held);
    if (next === null) return null;
    assignment = next;
  }
  return assignment;
}

/** The assignment with one smaller type that costs least divergence for each byte; null where all are the smallest. */
function cheapestReduction(ladders: Ladders, assignment: Assignment, held: number): Assignment | null {
  let best: { readonly tensor: number; readonly cost: number } | null = null;
  for (const [tensor, rungs] of ladders.entries()) {
    const rung = assignment[tensor]!;
    if (rung === 0 || tensor === held) continue;
    const [upper, lower] = [rungs[rung]!, rungs[rung - 1]!];
    const cost = (lower.divergence - upper.divergence) / (upper.bytes - lower.bytes);
    if (best === null || cost < best.cost) best = { tensor, cost };
  }
  return best && withRung(assignment, best.tensor, assignment[best.tensor]! - 1);
}

/** Ever smaller assignments: each one has one smaller type than the one before, the cheapest. */
export function reductionsOf(ladders: Ladders, start: Assignment, count: number): readonly Assignment[] {
  const found: Assignment[] = [];
  for (let last: Assignment | null = start; found.length < count; ) {
    last = cheapestReduction(ladders, last, -1);
    if (last === null) break;
    found.push(last);
  }
  return found;
}

const withRung = (assignment: Assignment, tensor: number, rung: number): Assignment =>
  assignment.map((own, i) => (i === tensor ? rung : own));

/** `count` of the values, the first and the last one among them, at even distances. */
export function spread<T>(values: readonly T[], count: number): readonly T[] {
  if (values.length <= count) return values;
  return Array.from(
    { length: count },
    (_, i) => values[Math.round((i * (values.length - 1)) / (count - 1))]!,
  );
}
