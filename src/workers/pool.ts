/**
 * Worker threads, each with memory that the main thread shares. The main thread reads files directly into a worker's
 * buffers and writes directly from them; the worker digests and casts in between. Nothing is copied.
 */
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { isAddressSpaceLimited, roomForThreads } from "../../kernels/address-space.ts";
import { Idle } from "../../kernels/idle.ts";
import { createSharedMemory, FIRST_ADDRESS } from "../../kernels/module.ts";
import { SCRATCH_BYTES as CAST_SCRATCH_BYTES } from "../cast/cast.ts";
import { builtFile } from "../core/built-file.ts";
import { IsologitError } from "../core/errors.ts";
import { ignoreEvents, type Watch } from "../core/events.ts";
import type { Answer, Call, CallResults } from "./calls.ts";
import { CHECKSUM_SCRATCH_BYTES } from "./checksum.ts";

/** Default of the option for memory. */
export const DEFAULT_MEMORY_BYTES = 1024 ** 3;

/** Buffers of a worker: one is filled while another is computed and a third is written. */
const BUFFERS = 3;
/**
 * A band of this size is still in the processor's cache when it is digested and written. With 16 MiB the same conversion
 * took four to seven times the system time on a busy machine; with 1 MiB the messages begin to cost time.
 */
const MAX_BUFFER_BYTES = 4 * 1024 * 1024;
/** Their largest buffers fit into the 4 GiB of one memory of WebAssembly. */
const MAX_WORKERS = 256;
/** A memory of WebAssembly ends here. */
const MAX_MEMORY_BYTES = 2 ** 32 - FIRST_ADDRESS;
/** With smaller bands, messages take more time than the work. */
const MIN_BUFFER_BYTES = 256 * 1024;

/** Memory of a worker for its casts, and behind it for checksums. */
export const SCRATCH_BYTES = CAST_SCRATCH_BYTES + CHECKSUM_SCRATCH_BYTES;

/** Memory for one band, shared with a worker. */
export interface BandBuffer {
  /** address in the memory of the worker */
  readonly at: number;
  readonly bytes: Uint8Array;
}

/** The part of a shared memory that one worker uses: its scratch memory at `at`, then its buffers. */
export interface Lane {
  readonly memory: WebAssembly.Memory;
  readonly at: number;
}

/** Bytes of a lane; whole pages, so that each lane begins a page. */
const laneBytes = ({ bufferBytes, heldBytes }: LaneSize): number =>
  pagesOf(SCRATCH_BYTES + BUFFERS * bufferBytes + heldBytes);

const pagesOf = (bytes: number): number => Math.ceil(bytes / 65536) * 65536;

export class BandWorker {
  readonly buffers: readonly BandBuffer[];
  /** memory for a whole tensor that is used twice; it may have no bytes */
  readonly held: BandBuffer;
  readonly #worker: Worker;
  readonly #waiting = new Map<
    number,
    { resolve: (value: unknown) => void; reject: (error: unknown) => void }
  >();
  #next = 0;
  /** of each buffer, the end of its last use; a use never fails */
  readonly #uses: Promise<void>[];
  #turn = 0;
  /** set after the thread has ended: later calls fail at once */
  #ended: { readonly error: unknown } | undefined;

  /** @param lane default: a memory of its own */
  constructor(size: LaneSize, lane: Lane = ownLane(size)) {
    const first = lane.at + SCRATCH_BYTES;
    const part = (at: number, bytes: number): BandBuffer => {
      return { at, bytes: new Uint8Array(lane.memory.buffer, at, bytes) };
    };
    const { bufferBytes, heldBytes } = size;
    this.buffers = Array.from({ length: BUFFERS }, (_, i) => part(first + i * bufferBytes, bufferBytes));
    this.#uses = this.buffers.map(() => Promise.resolve());
    this.held = part(first + BUFFERS * bufferBytes, heldBytes);
    this.#worker = new Worker(builtFile(import.meta.url, "./worker.js"), {
      workerData: lane satisfies Lane,
      execArgv: [], // flags of `node -e` would be refused
    });
    this.#worker.on("message", (answer: Answer) => {
      const waiting = this.#waiting.get(answer.id);
      this.#waiting.delete(answer.id);
      if (answer.error === undefined) waiting?.resolve(answer.value);
      else waiting?.reject(new IsologitError(answer.error.code, answer.error.message, answer.error.at));
    });
    const fail = (error: unknown) => {
      this.#ended ??= { error };
      for (const { reject } of this.#waiting.values()) reject(error);
      this.#waiting.clear();
    };
    this.#worker.on("error", fail);
    this.#worker.on("exit", () => fail(new IsologitError("INTERNAL", "a worker thread ended early")));
  }

  /** Answers come in the order of the calls. */
  call<C extends Call>(call: C): Promise<CallResults[C["op"]]> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended.error);
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      // The worker answers each call with the result of its own `op`.
      this.#waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
      this.#worker.postMessage({ ...call, id });
    });
  }

  /** The buffer that was used longest ago, when it is free. `keep` keeps it until a use ends. */
  async nextBuffer(): Promise<{ readonly buffer: BandBuffer; readonly keep: (used: Promise<void>) => void }> {
    const i = this.#turn++ % this.buffers.length;
    await this.#uses[i];
    const keep = (used: Promise<void>) => {
      this.#uses[i] = used;
    };
    return { buffer: this.buffers[i]!, keep };
  }

  /** Waits for all running calls, and forgets what they digested. @returns whether the thread can serve another pool */
  async settle(): Promise<boolean> {
    return await this.call({ op: "finish" }).then(
      () => true,
      () => false,
    );
  }

  /** An idle thread does not keep the process alive. */
  setIdle(isIdle: boolean): void {
    if (isIdle) this.#worker.unref();
    else this.#worker.ref();
  }

  /** Calls without an answer fail. */
  async close(): Promise<void> {
    await this.#worker.terminate();
  }
}

const ownLane = (size: LaneSize): Lane => ({
  memory: createSharedMemory(laneBytes(size)),
  at: FIRST_ADDRESS,
});

interface LaneSize {
  readonly bufferBytes: number;
  /** size of the memory in which a worker holds a whole tensor */
  readonly heldBytes: number;
}

export interface PoolSize extends LaneSize {
  readonly workers: number;
  /** all buffers together */
  readonly bytes: number;
}

/**
 * @param largest bytes of the largest tensor that is used twice; it is held in memory if all workers may hold so many bytes
 * @throws PLAN_MEMORY with the least memory that is enough
 */
export function poolSize(memoryBytes: number, threads = availableParallelism(), largest = 0): PoolSize {
  const workerBytes = (bufferBytes: number) => SCRATCH_BYTES + BUFFERS * bufferBytes;
  const least = workerBytes(MIN_BUFFER_BYTES);
  if (memoryBytes < least) {
    throw new IsologitError(
      "PLAN_MEMORY",
      `${memoryBytes} bytes of buffers are allowed, at least ${least} are needed`,
    );
  }
  const workers = Math.max(1, Math.min(threads, MAX_WORKERS, Math.floor(memoryBytes / least)));
  const share = memoryBytes / workers;
  const available = Math.floor((share - SCRATCH_BYTES) / BUFFERS / 65536) * 65536;
  const bufferBytes = Math.min(MAX_BUFFER_BYTES, available);
  const free = Math.min(share, MAX_MEMORY_BYTES / workers) - workerBytes(bufferBytes);
  const heldBytes = Math.max(0, Math.min(pagesOf(largest), Math.floor(free / 65536) * 65536));
  return { workers, bufferBytes, heldBytes, bytes: workers * (workerBytes(bufferBytes) + heldBytes) };
}

/** To start a thread takes as long as to convert 100 MB, so the workers of a small pool wait for the next one of their size. */
const MAX_IDLE_BYTES = 32 * 1024 * 1024;

interface Crew {
  readonly size: PoolSize;
  readonly workers: readonly BandWorker[];
}

const closeAll = (workers: readonly BandWorker[]) => Promise.all(workers.map((worker) => worker.close()));

const idle = new Idle<Crew>(({ workers }) => closeAll(workers));

export class WorkerPool implements AsyncDisposable {
  readonly workers: readonly BandWorker[];
  readonly bufferBytes: number;
  readonly #crew: Crew;

  /**
   * Where a limit of virtual memory leaves room for fewer threads than planned, fewer start.
   *
   * @throws ADDRESS_SPACE
   */
  constructor(size: PoolSize, watch: Watch = ignoreEvents) {
    const { workers: wanted, bufferBytes, heldBytes } = size;
    const isSame = ({ size }: Crew) =>
      size.workers === wanted && size.bufferBytes === bufferBytes && size.heldBytes === heldBytes;
    const waiting = idle.take(isSame);
    for (const worker of waiting?.workers ?? []) worker.setIdle(false);
    this.#crew = waiting ?? { size, workers: startWorkers(size, watch) };
    this.workers = this.#crew.workers;
    this.bufferBytes = bufferBytes;
  }

  /** Runs each job once, in order, on the next free worker. The first failure stops the rest. */
  async each<J>(jobs: readonly J[], work: (job: J, worker: BandWorker) => Promise<void>): Promise<void> {
    await this.eachStarted(jobs, async (job, worker) => {
      await work(job, worker);
      return { ended: Promise.resolve() };
    });
  }

  /**
   * As `each`, but a worker takes its next job when it has started one: two are in its hands at most.
   *
   * @param start returns when nothing of the job is left to be read
   */
  async eachStarted<J>(
    jobs: readonly J[],
    start: (job: J, worker: BandWorker) => Promise<{ readonly ended: Promise<void> }>,
  ): Promise<void> {
    let next = 0;
    let failed = false;
    const stop = (error: unknown) => {
      failed = true;
      throw error;
    };
    const run = async (worker: BandWorker) => {
      const running: Promise<void>[] = [];
      try {
        while (next < jobs.length && !failed) {
          const { ended } = await start(jobs[next++]!, worker);
          const checked = ended.catch(stop);
          checked.catch(() => {}); // marks an early failure as handled; it is awaited after the next start
          running.push(checked);
          if (running.length > 1) await running.shift();
        }
      } finally {
        await Promise.allSettled(running); // so that no buffer is touched later
      }
      await Promise.all(running);
    };
    const ended = await Promise.allSettled(this.workers.map((worker) => run(worker).catch(stop)));
    for (const worker of ended) if (worker.status === "rejected") throw worker.reason;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const usable = await Promise.all(this.workers.map((worker) => worker.settle()));
    const isRoomy = this.#crew.size.bytes <= MAX_IDLE_BYTES && !isAddressSpaceLimited();
    if (usable.includes(false) || !isRoomy || idle.items.length > 0) await closeAll(this.workers);
    else {
      for (const worker of this.workers) worker.setIdle(true);
      idle.keep(this.#crew);
    }
  }
}

function startWorkers(size: PoolSize, watch: Watch): readonly BandWorker[] {
  const bytes = laneBytes(size);
  const memory = createSharedMemory(size.workers * bytes);
  const count = roomForThreads(size.workers);
  if (count < size.workers) {
    const message = `the limit of virtual memory has room for ${count} of ${size.workers} threads`;
    watch({ type: "note", message });
  }
  return Array.from(
    { length: count },
    (_, i) => new BandWorker(size, { memory, at: FIRST_ADDRESS + i * bytes }),
  );
}
