/** The WASM backend: kernels use one shared memory; large runs use worker threads, small ones the calling thread. */
import { setImmediate } from "node:timers/promises";
import { widthOf } from "../../src/core/dtype.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { widen } from "../../src/core/float.ts";
import { roomForThreads } from "../address-space.ts";
import type { Backend, Kernel, Operand, Region, ScriptKernel } from "../kernel.ts";
import { createSharedMemory, FIRST_ADDRESS, instantiateModule } from "../module.ts";
import { createHeap, createRunMemory, type HeapSpan, type RunMemory } from "./heap.ts";
import { checkOperands } from "./operands.ts";
import { createKernelPool, kernelError } from "./pool.ts";

export interface WasmOptions {
  /** number of worker threads; with 1 everything runs on the calling thread */
  readonly threads: number;
  /** limit for operands and temporary data together; unused memory is free, because a page is allocated when it is first written */
  readonly memoryBytes: number;
}

/** Multiply-adds below which worker threads save no time: about 50 us of a linear kernel. */
const SMALL_WORK = 1 << 20;
/** How long small kernels may block the event loop, and with it reads and signals. */
const PATIENCE_MS = 10;
/** WebAssembly's 4 GiB, without the page of the module and one page that limits every address to below 2^32. */
export const ADDRESSABLE_BYTES = 65534 * 65536;

/** @throws ADDRESS_SPACE. Where a limit leaves room for fewer threads, fewer start. */
export async function createWasmBackend({ threads: wanted, memoryBytes }: WasmOptions): Promise<Backend> {
  const capacity = Math.min(memoryBytes, ADDRESSABLE_BYTES);
  const memory = createSharedMemory(capacity);
  const threads = wanted === 1 ? 1 : roomForThreads(wanted);
  const heap = createHeap(FIRST_ADDRESS, capacity);
  const functions = await instantiateModule(memory);
  const names = Object.keys(functions);
  const pool = threads > 1 ? await createKernelPool(threads, memory) : undefined;

  const memoryFor = createRunMemory(heap, threads);
  let pausedAt = performance.now();
  let last: Promise<void> = Promise.resolve();
  /** the operand that the shared memory holds in converted form, and its region */
  let made: { readonly of: Region; readonly what: string } | undefined;
  const markWritten = (region: Region) => {
    if (made?.of === region) made = undefined;
  };

  /** Computes the items of one export, with the workers if there is enough work. */
  const compute = async (
    fn: string,
    args: readonly number[],
    items: number,
    work: number,
    room?: RunMemory,
  ) => {
    if (pool !== undefined && items > 1 && work >= SMALL_WORK) {
      const { scratch = 0, scratchBytes = 0 } = room ?? {};
      await pool.run({ fn: names.indexOf(fn), args, items, scratch, scratchBytes });
      pausedAt = performance.now();
      return;
    }
    const own = room !== undefined && room.scratchBytes > 0 ? [room.scratch] : [];
    try {
      functions[fn]!(...args, ...own, 0, items);
    } catch (cause) {
      throw kernelError(String(cause), cause);
    }
    if (performance.now() - pausedAt > PATIENCE_MS) {
      await setImmediate();
      pausedAt = performance.now();
    }
  };

  const bytesOf = ({ length, dtype }: Operand, region: Region) =>
    new Uint8Array(memory.buffer, (region as HeapSpan).address, length * widthOf(dtype));

  const executeScript = <P>(kernel: ScriptKernel<P>, p: P, inputs: readonly Region[], output: Region) => {
    const operands = kernel.inputs(p).map((operand, i) => widen(operand.dtype, bytesOf(operand, inputs[i]!)));
    markWritten(output);
    const { address } = output as HeapSpan;
    kernel.compute(p, operands, new Float32Array(memory.buffer, address, kernel.output(p).length));
  };

  const execute = async <P>(
    kernel: Kernel<P> | ScriptKernel<P>,
    p: P,
    inputs: readonly Region[],
    output: Region,
  ) => {
    checkOperands(kernel, p, inputs, output);
    if ("compute" in kernel) return executeScript(kernel, p, inputs, output);
    const { wasm } = kernel;
    for (const part of wasm.parts?.(p) ?? [p]) {
      const addresses = [...inputs, output].map((region) => (region as HeapSpan).address); // made by `allocate` below
      const room = memoryFor(kernel, part);
      const shared = wasm.shared?.(part);
      if (shared !== undefined) {
        const { fn, operand, scalars, items, work } = shared;
        const args = [...scalars, addresses[operand]!, room.shared];
        const what = [fn, ...args].join();
        if (made?.what !== what) {
          made = undefined; // if the conversion fails, the memory holds nothing usable
          await compute(fn, args, items, work);
          made = { of: inputs[operand]!, what };
        }
        addresses[operand] = room.shared;
      }
      markWritten(output);
      await compute(wasm.fn, [...wasm.scalars(part), ...addresses], wasm.items(part), wasm.work(part), room);
    }
  };

  return {
    id: "wasm",
    extensions: [],
    memory,
    device: `WASM SIMD, ${threads} ${threads === 1 ? "thread" : "threads"}`,
    allocate: (bytes) => heap.allocate(bytes),
    release(region) {
      markWritten(region);
      heap.free(region as HeapSpan);
    },

    async upload(region, bytes, fill) {
      if (bytes > region.bytes) throw new IsologitError("INTERNAL", `${bytes} bytes for ${region.bytes}`);
      try {
        await fill(new Uint8Array(memory.buffer, (region as HeapSpan).address, bytes));
      } finally {
        markWritten(region);
      }
    },

    run(kernel, p, inputs, output) {
      const done = last.then(() => execute(kernel, p, inputs, output));
      last = done.catch(() => {}); // the caller gets the error; the next kernel starts anyway
      return done;
    },

    async view(region, length) {
      return new Float32Array(memory.buffer, (region as HeapSpan).address, length);
    },

    async [Symbol.asyncDispose]() {
      await pool?.[Symbol.asyncDispose]();
    },
  };
}
