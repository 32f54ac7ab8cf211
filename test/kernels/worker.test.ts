/** A worker thread and its mailbox, without the pool that raises it. */
import { once } from "node:events";
import { setTimeout } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { expect, it } from "vitest";
import { MAILBOX_BYTES, openMailbox, WORD } from "../../kernels/backend/mailbox.ts";
import { createKernelPool } from "../../kernels/backend/pool.ts";
import { createSharedMemory, FIRST_ADDRESS, instantiateModule } from "../../kernels/module.ts";
import { builtFile } from "../../src/core/built-file.ts";

it("computes when the job number changes, not at every wake-up", async () => {
  const mailbox = new SharedArrayBuffer(MAILBOX_BYTES);
  const { words } = openMailbox(mailbox);
  const file = builtFile(new URL("../../kernels/backend/pool.ts", import.meta.url).href, "./worker.js");
  const worker = new Worker(file, { execArgv: [] });
  try {
    worker.postMessage({ memory: createSharedMemory(65536), mailbox, index: 0, threads: 1 });
    await once(worker, "message"); // ready
    // As a main thread does that was held up between raising the number and calling: the worker has done the job by then.
    while (Atomics.notify(words, WORD.JOB) === 0) await setTimeout(5);
    await setTimeout(100);
    expect(Atomics.load(words, WORD.DONE)).toBe(0);
    Atomics.add(words, WORD.JOB, 1);
    Atomics.notify(words, WORD.JOB);
    await once(worker, "message");
    expect(Atomics.load(words, WORD.DONE)).toBe(1);
  } finally {
    await worker.terminate();
  }
});

it("serves one pool after another", async () => {
  const memory = createSharedMemory(65536);
  const relu2 = Object.keys(await instantiateModule(memory)).indexOf("relu2");
  expect(relu2).toBeGreaterThanOrEqual(0);
  for (const threads of [2, 3, 1]) {
    await using pool = await createKernelPool(threads, memory);
    const values = new Float32Array(memory.buffer, FIRST_ADDRESS, 8);
    values.set([1, 2, 3, 4, 5, 6, 7, 8]);
    await pool.run({
      fn: relu2,
      args: [FIRST_ADDRESS, FIRST_ADDRESS],
      items: 8,
      scratch: 0,
      scratchBytes: 0,
    });
    expect([...values]).toEqual([1, 4, 9, 16, 25, 36, 49, 64]);
  }
});
