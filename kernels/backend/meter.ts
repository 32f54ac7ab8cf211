/**
 * A backend that computes nothing. It allocates memory like the WASM backend and records the peak. It does not read
 * weights, since `upload` does not call `fill`.
 */
import type { Backend } from "../kernel.ts";
import { ALIGNMENT, createHeap, createRunMemory, type HeapSpan } from "./heap.ts";

interface Meter extends Backend {
  /** the smallest memory limit with which the same calls would succeed */
  readonly peakBytes: number;
}

export function createMeter(threads: number): Meter {
  let peakBytes = 0;
  let views = 0;
  const { allocate, free } = createHeap(0, Number.MAX_SAFE_INTEGER - ALIGNMENT);
  const heap = {
    allocate(bytes: number) {
      const span = allocate(bytes);
      peakBytes = Math.max(peakBytes, span.address + Math.max(ALIGNMENT, bytes));
      return span;
    },
    free,
  };
  const memoryFor = createRunMemory(heap, threads);
  return {
    id: "wasm",
    device: "none",
    extensions: [],
    get peakBytes() {
      return Math.ceil(peakBytes / ALIGNMENT) * ALIGNMENT;
    },
    allocate: (bytes) => heap.allocate(bytes),
    release: (region) => heap.free(region as HeapSpan), // regions are made by `allocate`
    async upload() {},
    async run(kernel, p) {
      const onGpu = Object.values(kernel.wgsl?.scratch?.(p) ?? {}).reduce((sum, bytes) => sum + bytes, 0);
      if ("compute" in kernel) return; // it widens operands outside this memory
      memoryFor(kernel, kernel.wasm.parts?.(p)[0] ?? p, onGpu);
    },
    /**
     * One number, different at each call, so that a comparison of two results finds a difference. It is between 0 and
     * 1, so that it is 0 when used as an index.
     */
    async view() {
      return Float32Array.of(++views * 2 ** -24);
    },
    async [Symbol.asyncDispose]() {},
  };
}
