/** Worker threads that compute one kernel together. */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { builtFile } from "../../src/core/built-file.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { isAddressSpaceLimited } from "../address-space.ts";
import { Idle } from "../idle.ts";
import { MAILBOX_BYTES, NO_MORE, NUMBER, openMailbox, WORD } from "./mailbox.ts";
import type { WorkerStart } from "./worker.ts";

interface KernelJob {
  /** index among the module's exports */
  readonly fn: number;
  /** scalars and addresses */
  readonly args: readonly number[];
  /** number of work items; the workers take short ranges of them in turn */
  readonly items: number;
  /** address of the scratch of the first worker, and bytes of each worker's scratch; 0 if the kernel has none */
  readonly scratch: number;
  readonly scratchBytes: number;
}

interface KernelPool extends AsyncDisposable {
  /** One job at a time. @throws INTERNAL when a worker fails or dies */
  run(job: KernelJob): Promise<void>;
}

/** More threads than this do not wait for the next backend. */
const MAX_IDLE = 8;

const idle = new Idle<Worker>((worker) => worker.terminate());

/** A thread without a backend. */
function takeWorker(): Worker {
  const worker = idle.take();
  worker?.ref();
  // execArgv: a worker may not accept flags of this process, such as --input-type.
  return worker ?? new Worker(builtFile(import.meta.url, "./worker.js"), { execArgv: [] });
}

export async function createKernelPool(threads: number, memory: WebAssembly.Memory): Promise<KernelPool> {
  const mailbox = new SharedArrayBuffer(MAILBOX_BYTES);
  const { words, numbers, failure } = openMailbox(mailbox);
  const workers = Array.from({ length: threads }, takeWorker);
  const ready = workers.map((worker) => once(worker, "message"));
  for (const [index, worker] of workers.entries()) {
    const start: WorkerStart = { memory, mailbox, index, threads };
    worker.postMessage(start);
  }
  const close = () => Promise.all(workers.map((worker) => worker.terminate()));
  try {
    await Promise.all(ready);
  } catch (cause) {
    await close(); // a thread that stays keeps the process alive
    throw kernelError("a worker thread does not start", cause);
  }

  let settle: { resolve(): void; reject(error: unknown): void } | undefined;
  /** no worker computes, and none has failed */
  let isUsable = true;
  const done = () => settle?.resolve();
  const die = (cause: unknown) => settle?.reject(kernelError("a worker thread died", cause));
  for (const worker of workers) {
    worker.on("message", done).on("error", die);
    worker.unref(); // an idle pool does not keep the process alive; while it runs, its first worker does
  }

  const start = (fn: number) => {
    words[WORD.FN] = fn;
    Atomics.add(words, WORD.JOB, 1);
    Atomics.notify(words, WORD.JOB);
  };

  return {
    async run({ fn, args, items, scratch, scratchBytes }) {
      numbers.set(args);
      numbers[NUMBER.ITEMS] = items;
      numbers[NUMBER.SCRATCH] = scratch;
      numbers[NUMBER.SCRATCH_BYTES] = scratchBytes;
      words[WORD.COUNT] = args.length;
      words[WORD.DONE] = 0;
      words[WORD.FAILED] = 0;
      words[WORD.NEXT] = 0;
      workers[0]!.ref();
      isUsable = false;
      try {
        await new Promise<void>((resolve, reject) => {
          settle = { resolve, reject };
          start(fn);
        });
      } finally {
        settle = undefined;
        workers[0]!.unref();
      }
      if (words[WORD.FAILED] !== 0) throw kernelError(Buffer.from(failure).toString().replace(/\0+$/, ""));
      isUsable = true;
    },

    async [Symbol.asyncDispose]() {
      for (const worker of workers) worker.off("message", done).off("error", die);
      const isRoomy = idle.items.length + threads <= MAX_IDLE && !isAddressSpaceLimited();
      if (!isUsable || !isRoomy) await close();
      else {
        start(NO_MORE);
        for (const worker of workers) idle.keep(worker);
      }
    },
  };
}

/** The error for a trap or a dead thread: an internal fault. */
export function kernelError(message: string, cause?: unknown): IsologitError {
  return new IsologitError("INTERNAL", `a kernel failed: ${message}`, {}, { cause });
}
