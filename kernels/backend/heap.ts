/** Which bytes of a memory are taken: first fit over a sorted list of gaps, neighbours joined on release. */
import { IsologitError } from "../../src/core/errors.ts";
import type { Kernel } from "../kernel.ts";

/** Whole cache lines, so that two threads never write to one. */
export const ALIGNMENT = 64;

export interface HeapSpan {
  readonly address: number;
  readonly bytes: number;
}

interface Heap {
  /** @throws PLAN_MEMORY when no gap is large enough */
  allocate(bytes: number): HeapSpan;
  /** @throws INTERNAL when the span is not one that `take` gave and that is still taken */
  free(span: HeapSpan): void;
}

/** A heap over the addresses [from, from + capacity); `from` is a multiple of ALIGNMENT. */
export function createHeap(from: number, capacity: number): Heap {
  const gaps: { from: number; to: number }[] = [{ from, to: from + capacity }];
  const taken = new Set<HeapSpan>();

  const room = (bytes: number) => Math.max(ALIGNMENT, Math.ceil(bytes / ALIGNMENT) * ALIGNMENT);

  return {
    allocate(bytes) {
      const gap = gaps.find(({ from, to }) => to - from >= room(bytes));
      if (gap === undefined) {
        const free = gaps.reduce((sum, { from, to }) => sum + to - from, 0);
        throw new IsologitError(
          "PLAN_MEMORY",
          `the kernels need ${bytes} bytes more; of their ceiling of ${capacity} bytes ${free} are free`,
        );
      }
      const span = { address: gap.from, bytes };
      gap.from += room(bytes);
      if (gap.from === gap.to) gaps.splice(gaps.indexOf(gap), 1);
      taken.add(span);
      return span;
    },

    free(span) {
      if (!taken.delete(span)) throw new IsologitError("INTERNAL", "a region is released that is not taken");
      const freed = { from: span.address, to: span.address + room(span.bytes) };
      const next = gaps.findIndex((gap) => gap.from >= freed.to);
      const at = next < 0 ? gaps.length : next;
      const before = gaps[at - 1];
      const after = gaps[at];
      const joinsBefore = before?.to === freed.from;
      const joinsAfter = after?.from === freed.to;
      if (joinsBefore) freed.from = before.from;
      if (joinsAfter) freed.to = after.to;
      gaps.splice(at - (joinsBefore ? 1 : 0), (joinsBefore ? 1 : 0) + (joinsAfter ? 1 : 0), freed);
    },
  };
}

/** Memory of a run besides its operands; its content outlives no other run that wants some. */
export interface RunMemory {
  /** address of what all threads share */
  readonly shared: number;
  /** address of the first thread's scratch, and the bytes of each, whole cache lines */
  readonly scratch: number;
  readonly scratchBytes: number;
}

/** @returns a run's room, which grows to what is asked; its `least` is bytes of scratch of all threads, at least */
export function createRunMemory(
  heap: Heap,
  threads: number,
): <P>(kernel: Kernel<P>, p: P, least?: number) => RunMemory {
  const sharedFor = createScratch(heap);
  const scratchFor = createScratch(heap);
  return ({ wasm }, p, least = 0) => {
    const scratchBytes = Math.ceil((wasm.scratch?.(p) ?? 0) / ALIGNMENT) * ALIGNMENT;
    const shared = sharedFor(wasm.shared?.(p).bytes ?? 0);
    return { shared, scratch: scratchFor(Math.max(scratchBytes * threads, least)), scratchBytes };
  };
}

function createScratch(heap: Heap): (bytes: number) => number {
  let scratch = heap.allocate(0);
  return (bytes) => {
    if (bytes > scratch.bytes) {
      const larger = heap.allocate(bytes);
      heap.free(scratch);
      scratch = larger;
    }
    return scratch.address;
  };
}
