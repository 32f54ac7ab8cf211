/** A worker thread of the WASM backend: waits for a job in a mailbox, computes its part, and waits again. */
import { parentPort } from "node:worker_threads";
import { instantiateModule } from "../module.ts";
import { NO_MORE, NUMBER, openMailbox, WORD } from "./mailbox.ts";

/** What begins the service of one backend. */
export interface WorkerStart {
  readonly memory: WebAssembly.Memory;
  readonly mailbox: SharedArrayBuffer;
  /** index of this worker */
  readonly index: number;
  readonly threads: number;
}

/**
 * Number of ranges of a job for each worker if all are equally fast. With several ranges no worker waits long for one
 * on a busy core, and V8 can optimise a kernel between two calls.
 */
const RUNS = 8;

parentPort!.on("message", serve);

/** Computes the jobs of one mailbox until the main thread wants no more. */
async function serve({ memory, mailbox, index, threads }: WorkerStart): Promise<void> {
  const { words, numbers, failure } = openMailbox(mailbox);
  const functions = Object.values(await instantiateModule(memory));
  const compute = () => {
    const args = Array.from(numbers.subarray(0, words[WORD.COUNT]));
    const items = numbers[NUMBER.ITEMS]!;
    const scratchBytes = numbers[NUMBER.SCRATCH_BYTES]!;
    if (scratchBytes > 0) args.push(numbers[NUMBER.SCRATCH]! + index * scratchBytes);
    const fn = functions[words[WORD.FN]!]!;
    const run = Math.ceil(items / (threads * RUNS));
    while (true) {
      const from = Atomics.add(words, WORD.NEXT, run);
      if (from >= items) return;
      fn(...args, from, Math.min(items, from + run));
    }
  };
  parentPort!.postMessage("ready");
  for (let job = 0; ; job++) {
    // A late wake-up may arrive when this worker has already done the job and waits again; the job number decides.
    while (Atomics.load(words, WORD.JOB) === job) Atomics.wait(words, WORD.JOB, job);
    if (words[WORD.FN] === NO_MORE) return;
    try {
      compute();
    } catch (error) {
      failure.fill(0);
      failure.set(new TextEncoder().encode(String(error)).subarray(0, failure.length));
      Atomics.store(words, WORD.FAILED, index + 1);
    }
    if (Atomics.add(words, WORD.DONE, 1) === threads - 1) parentPort!.postMessage("done");
  }
}
