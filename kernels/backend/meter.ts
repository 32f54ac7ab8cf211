/**
 * A backend that computes nothing: it hands out memory as the WASM backend does and says how much of it was ever
 * taken. What runs on it is not read either, since `upload` calls no one.
 */
import type { Backend } from "../kernel.ts";
import { ALIGNMENT, createHeap, createRunMemory, type HeapSpan } from "./heap.ts";

interface Meter extends Backend {
  /** the least ceiling under which the same calls would have found memory */
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
  const roomFor = createRunMemory(heap, threads);
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
      const onGpu = Object.values(kernel.wgsl.scratch?.(p) ?? {}).reduce((sum, bytes) => sum + bytes, 0);
      roomFor(kernel, kernel.wasm.parts?.(p)[0] ?? p, onGpu);
    },
    /**
     * One number, never the same twice: whoever compares two results must take them for different. It lies between 0
     * and 1, so that as an index it is 0.
     */
    async view() {
      return Float32Array.of(++views * 2 ** -24);
    },
    async [Symbol.asyncDispose]() {},
  };
}
