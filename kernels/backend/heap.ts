/** Allocates ranges of a memory: first fit in a sorted list of gaps; neighbouring gaps are joined. */
import { IsologitError } from "../../src/core/errors.ts";
import type { Kernel } from "../kernel.ts";

/** The size of a cache line: two threads never write to the same line. */
export const ALIGNMENT = 64;

export interface HeapSpan {
  readonly address: number;
  readonly bytes: number;
}

interface Heap {
  /** @throws PLAN_MEMORY when no gap is large enough */
  allocate(bytes: number): HeapSpan;
  /** @throws INTERNAL if the span is not allocated */
  free(span: HeapSpan): void;
}

/** A heap over the addresses [from, from + capacity); `from` is a multiple of ALIGNMENT. */
export function createHeap(from: number, capacity: number): Heap {
  const gaps: { from: number; to: number }[] = [{ from, to: from + capacity }];
  const allocated = new Set<HeapSpan>();

  const room = (bytes: number) => Math.max(ALIGNMENT, Math.ceil(bytes / ALIGNMENT) * ALIGNMENT);

  return {
    allocate(bytes) {
      const gap = gaps.find(({ from, to }) => to - from >= room(bytes));
      if (gap === undefined) {
        const free = gaps.reduce((sum, { from, to }) => sum + to - from, 0);
        throw new IsologitError(
          "PLAN_MEMORY",
          `the kernels need ${bytes} more bytes; ${free} of ${capacity} bytes are free`,
        );
      }
      const span = { address: gap.from, bytes };
      gap.from += room(bytes);
      if (gap.from === gap.to) gaps.splice(gaps.indexOf(gap), 1);
      allocated.add(span);
      return span;
    },

    free(span) {
      if (!allocated.delete(span))
        throw new IsologitError("INTERNAL", "a region was released that is not allocated");
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

/** Memory of a run besides its operands; the next run may overwrite it. */
export interface RunMemory {
  /** address of the converted operand that all threads read */
  readonly shared: number;
  /** address of the scratch of the first thread, and the bytes of each thread's scratch, whole cache lines */
  readonly scratch: number;
  readonly scratchBytes: number;
}

/** @returns a function that provides the memory of a run; `least`: minimum bytes of scratch of all threads together */
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
