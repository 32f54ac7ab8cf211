/**
 * Shared memory that passes jobs to the worker threads. The main thread writes a job and increments JOB. Each worker
 * waits for a change of JOB, computes its part and increments DONE.
 */

/** Indices in `words`. */
export const WORD = {
  /** number of the current job; workers wait while it does not change */
  JOB: 0,
  /** number of workers that have finished the job */
  DONE: 1,
  /** index of the function in the exports of the module, or NO_MORE */
  FN: 2,
  /** number of arguments in `numbers` */
  COUNT: 3,
  /** index of the failed worker plus one, or 0 */
  FAILED: 4,
  /** the first item that no worker has started */
  NEXT: 5,
} as const;

/** In the place of a function: no job follows. */
export const NO_MORE = -1;

interface Mailbox {
  readonly words: Int32Array;
  /** arguments: scalars, then addresses; at fixed indices: ITEMS, SCRATCH and SCRATCH_BYTES */
  readonly numbers: Float64Array;
  /** message of the worker that failed, UTF-8, zero-padded */
  readonly failure: Uint8Array;
}

export const NUMBER = { ITEMS: 29, SCRATCH: 30, SCRATCH_BYTES: 31 } as const;

export const MAILBOX_BYTES = 1024;

export function openMailbox(buffer: SharedArrayBuffer): Mailbox {
  return {
    words: new Int32Array(buffer, 0, 16),
    numbers: new Float64Array(buffer, 64, 32),
    failure: new Uint8Array(buffer, 320),
  };
}
