/** A worker thread of the WASM backend: sleeps on the mailbox, computes its share of each job, sleeps again. */
import { parentPort, workerData } from "node:worker_threads";
import { instantiateModule } from "../module.ts";
import { NUMBER, openMailbox, WORD } from "./mailbox.ts";

export interface WorkerStart {
  readonly memory: WebAssembly.Memory;
  readonly mailbox: SharedArrayBuffer;
  /** this worker's number, and of how many */
  readonly index: number;
  readonly threads: number;
}

const { memory, mailbox, index, threads } = workerData as WorkerStart; // what pool.ts passes
const { words, numbers, failure } = openMailbox(mailbox);
const functions = Object.values(await instantiateModule(memory));

/**
 * Runs that a worker takes of a job if all are equally fast: none waits long for one whose core is shared, and V8
 * optimises a kernel between two calls of it.
 */
const RUNS = 8;

function compute(): void {
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
}

parentPort!.postMessage("ready");
for (let job = 0; ; job++) {
  // A call to wake up may come late, when this worker has done its job unasked and sleeps again: the number decides.
  while (Atomics.load(words, WORD.JOB) === job) Atomics.wait(words, WORD.JOB, job);
  try {
    compute();
  } catch (error) {
    failure.fill(0);
    failure.set(new TextEncoder().encode(String(error)).subarray(0, failure.length));
    Atomics.store(words, WORD.FAILED, index + 1);
  }
  if (Atomics.add(words, WORD.DONE, 1) === threads - 1) parentPort!.postMessage("done");
}
