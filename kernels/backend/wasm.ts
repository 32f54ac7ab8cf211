/** The WASM backend: kernels over one shared memory, large ones on worker threads, small ones right here. */
import { setImmediate } from "node:timers/promises";
import { IsologitError } from "../../src/core/errors.ts";
import type { Backend, Kernel, Region } from "../define.ts";
import { FIRST_ADDRESS, instantiate, sharedMemory } from "../module.ts";
import { createHeap, createScratch, type Span } from "./heap.ts";
import { checkOperands } from "./operands.ts";
import { createPool, kernelFault } from "./pool.ts";

export interface WasmOptions {
  /** worker threads; with 1 there is none, and all runs on the calling thread */
  readonly threads: number;
  /** ceiling for operands and scratch together; a page takes room once it is written */
  readonly memoryBytes: number;
}

/** Multiply-adds below which waking the workers costs more than they save: some 50 us of a linear kernel. */
const SMALL_WORK = 1 << 20;
/** How long small kernels may keep the event loop, and with it reads and signals, waiting. */
const PATIENCE_MS = 10;
/** WebAssembly's 4 GiB, less the module's own page and one that keeps every address below 2^32. */
export const ADDRESSABLE = 65534 * 65536;

export async function createWasmBackend({ threads, memoryBytes }: WasmOptions): Promise<Backend> {
  const capacity = Math.min(memoryBytes, ADDRESSABLE);
  const memory = sharedMemory(capacity);
  const heap = createHeap(FIRST_ADDRESS, capacity);
  const functions = await instantiate(memory);
  const names = Object.keys(functions);
  const pool = threads > 1 ? await createPool(threads, memory) : undefined;

  const scratchFor = createScratch(heap);
  let pausedAt = performance.now();
  let last: Promise<void> = Promise.resolve();

  const execute = async <P>(kernel: Kernel<P>, p: P, inputs: readonly Region[], output: Region) => {
    const { wasm } = kernel;
    checkOperands(kernel, p, inputs, output);
    const spans = [...inputs, output].map((region) => region as Span); // regions are made by `allocate` below
    const args = [...wasm.scalars(p), ...spans.map(({ address }) => address)];
    const items = wasm.items(p);
    const scratchBytes = scratchOf(kernel, p);
    const scratchAt = scratchFor(scratchBytes * threads);
    if (pool !== undefined && items > 1 && wasm.work(p) >= SMALL_WORK) {
      await pool.run({ fn: names.indexOf(wasm.fn), args, items, scratch: scratchAt, scratchBytes });
      pausedAt = performance.now();
      return;
    }
    if (scratchBytes > 0) args.push(scratchAt);
    try {
      functions[wasm.fn]!(...args, 0, items);
    } catch (cause) {
      throw kernelFault(String(cause), cause);
    }
    if (performance.now() - pausedAt > PATIENCE_MS) {
      await setImmediate();
      pausedAt = performance.now();
    }
  };

  return {
    id: "wasm",
    extensions: [],
    device: `WASM SIMD, ${threads} ${threads === 1 ? "thread" : "threads"}`,
    allocate: (bytes) => heap.take(bytes),
    release: (region) => heap.give(region as Span),

    async upload(region, bytes, fill) {
      if (bytes > region.bytes) throw new IsologitError("INTERNAL", `${bytes} bytes for ${region.bytes}`);
      await fill(new Uint8Array(memory.buffer, (region as Span).address, bytes));
    },

    run(kernel, p, inputs, output) {
      const done = last.then(() => execute(kernel, p, inputs, output));
      last = done.catch(() => {}); // told to the caller; the next kernel starts all the same
      return done;
    },

    async view(region, length) {
      return new Float32Array(memory.buffer, (region as Span).address, length);
    },

    async [Symbol.asyncDispose]() {
      await pool?.[Symbol.asyncDispose]();
    },
  };
}

/** Bytes of scratch that a thread needs, whole cache lines. */
export function scratchOf<P>({ wasm }: Kernel<P>, p: P): number {
  return Math.ceil((wasm.scratch?.(p) ?? 0) / 64) * 64;
}
