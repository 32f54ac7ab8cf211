/**
 * Lanes: each a worker thread and memory shared with it. The main thread reads files straight into a lane's
 * slots and writes straight out of them; the worker digests and casts in between. Nothing is copied.
 */
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { createSharedMemory, FIRST_ADDRESS } from "../../kernels/module.ts";
import { type EmptyKind, SCRATCH_BYTES } from "../cast/cast.ts";
import { builtFile } from "../core/built-file.ts";
import type { FloatDType } from "../core/dtype.ts";
import { type ErrorCode, type ErrorLocation, IsologitError } from "../core/errors.ts";

interface Cast {
  readonly from: FloatDType;
  readonly to: FloatDType;
  /** FP8 destinations: the factor from stored to real */
  readonly scale: number | null;
  /** FP8 sources: theirs */
  readonly sourceScale: number | null;
}

/** What a lane's worker does; addresses are into its memory, in bytes. */
export type Call =
  /** largest |x|, as an f32 value. @throws NON_FINITE with the index from `at` */
  | { readonly op: "amax"; readonly dtype: FloatDType; readonly at: number; readonly count: number }
  /** digests the next band of a tensor, casting it first where told; `overflowAt` is an index or -1 */
  | {
      readonly op: "band";
      /** also checksums of chunks, which a format's seals ask for */
      readonly sealed: boolean;
      /** of a cast, also the digest of the source's bytes; default: no */
      readonly ofSource?: boolean;
      readonly at: number;
      readonly size: number;
      readonly cast?: Cast & { readonly toAt: number; readonly toSize: number; readonly count: number };
    }
  /** digests of all bands since the last; `source` is of what was cast or compared, else of what is stored */
  | { readonly op: "finish" }
  /** digests a's band as source and b's as stored; `differsAt` is the first element of b that is not (the cast of) a's */
  | {
      readonly op: "pair";
      readonly a: number;
      readonly size: number;
      readonly b: number;
      readonly toSize: number;
      readonly count: number;
      readonly cast?: Cast & {
        readonly toAt: number;
        /** elements of a row, where rows are to be looked at; else 0 */
        readonly columns: number;
      };
      /** the type of a's elements, where it is asked whether all of them are dead */
      readonly probe?: FloatDType;
    };

/** What a cast destroyed in a band; less than one element in 256, and than a row, is taken for nothing. */
export interface Loss {
  /** elements of a that are not 0 */
  readonly nonzero: number;
  /** of these, how many became 0 */
  readonly zeroed: number;
  /** of these, how many became 0 or a subnormal number */
  readonly coarse: number;
  /** rows that are not all 0 in a and all 0 in b: how many, and the first and the last, counted from the band's start */
  readonly rows: { readonly count: number; readonly first: number; readonly last: number } | null;
}

export interface CallResults {
  amax: number;
  band: { overflowAt: number };
  finish: { sha256: string; crc32: readonly number[]; source: string };
  /** `amax` is that of a's stored numbers where they are cast, else 0; `loss` is null where nothing is cast */
  pair: { differsAt: number; amax: number; loss: Loss | null; dead: EmptyKind | null };
}

export type Answer =
  | { readonly id: number; readonly value: unknown; readonly error?: never }
  | {
      readonly id: number;
      readonly error: { readonly code: ErrorCode; readonly at: ErrorLocation; readonly message: string };
    };

/** `--memory` where it is not given. */
export const DEFAULT_MEMORY_BYTES = 1024 ** 3;

/** Slots of a lane: one is read into while another is worked on and a third is written out. */
const SLOTS = 3;
/**
 * Bands of this size are still in the processor's cache when they are digested and written: at 16 MiB the same
 * conversion took four to seven times the system time on a busy machine, at 1 MiB messages begin to cost.
 */
const MAX_SLOT_BYTES = 4 * 1024 * 1024;
/** Smaller bands spend more time on messages than on work. */
const MIN_SLOT_BYTES = 256 * 1024;

/** A place for one band in a lane's memory. */
export interface BandBuffer {
  readonly at: number;
  readonly bytes: Uint8Array;
}

export class BandWorker {
  readonly buffers: readonly BandBuffer[];
  readonly #worker: Worker;
  readonly #waiting = new Map<
    number,
    { resolve: (value: unknown) => void; reject: (error: unknown) => void }
  >();
  #next = 0;
  /** set once the thread has ended: nobody would answer any more */
  #ended: { readonly error: unknown } | undefined;

  constructor(slotBytes: number) {
    const first = FIRST_ADDRESS + SCRATCH_BYTES;
    const memory = createSharedMemory(SCRATCH_BYTES + SLOTS * slotBytes);
    this.buffers = Array.from({ length: SLOTS }, (_, i) => {
      const at = first + i * slotBytes;
      return { at, bytes: new Uint8Array(memory.buffer, at, slotBytes) };
    });
    this.#worker = new Worker(builtFile(import.meta.url, "./worker.js"), {
      workerData: { memory },
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

  /** Calls are answered in their order. */
  call<C extends Call>(call: C): Promise<CallResults[C["op"]]> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended.error);
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      // The worker answers each call with the result of its own `op`.
      this.#waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
      this.#worker.postMessage({ ...call, id });
    });
  }

  /** Calls that are still waiting fail. */
  async close(): Promise<void> {
    await this.#worker.terminate();
  }
}

interface PoolSize {
  readonly lanes: number;
  readonly slotBytes: number;
  /** all buffers together */
  readonly bytes: number;
}

/** @throws PLAN_MEMORY with the least that would do */
export function poolSize(memoryBytes: number, threads = availableParallelism()): PoolSize {
  const laneBytes = (slotBytes: number) => SCRATCH_BYTES + SLOTS * slotBytes;
  const least = laneBytes(MIN_SLOT_BYTES);
  if (memoryBytes < least) {
    throw new IsologitError(
      "PLAN_MEMORY",
      `${memoryBytes} bytes of buffers are allowed, at least ${least} are needed`,
    );
  }
  const lanes = Math.max(1, Math.min(threads, Math.floor(memoryBytes / least)));
  const room = Math.floor((memoryBytes / lanes - SCRATCH_BYTES) / SLOTS / 65536) * 65536;
  const slotBytes = Math.min(MAX_SLOT_BYTES, room);
  return { lanes, slotBytes, bytes: lanes * laneBytes(slotBytes) };
}

export class WorkerPool implements AsyncDisposable {
  readonly lanes: readonly BandWorker[];
  readonly slotBytes: number;

  constructor(size: PoolSize) {
    this.slotBytes = size.slotBytes;
    this.lanes = Array.from({ length: size.lanes }, () => new BandWorker(size.slotBytes));
  }

  /** Every job once, each on the next free lane, in their order. The first failure stops the rest. */
  async each<J>(jobs: readonly J[], work: (job: J, lane: BandWorker) => Promise<void>): Promise<void> {
    let next = 0;
    let failed = false;
    const run = async (lane: BandWorker) => {
      while (next < jobs.length && !failed) await work(jobs[next++]!, lane);
    };
    const stop = (error: unknown) => {
      failed = true;
      throw error;
    };
    const ended = await Promise.allSettled(this.lanes.map((lane) => run(lane).catch(stop)));
    for (const lane of ended) if (lane.status === "rejected") throw lane.reason;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.lanes.map((lane) => lane.close()));
  }
}
