/**
 * The shared page through which a job reaches the worker threads. The main thread writes a job, then raises JOB;
 * each worker sleeps on JOB, does its part, and raises DONE.
 */

/** Words of `words`. */
export const WORD = {
  /** number of the current job; workers sleep while it stays */
  JOB: 0,
  /** workers that have finished it */
  DONE: 1,
  /** index of the function among the module's exports */
  FN: 2,
  /** how many of `numbers` are arguments */
  COUNT: 3,
  /** the failed worker's number plus one, or 0 */
  FAILED: 4,
  /** the first item that no worker has taken yet */
  NEXT: 5,
} as const;

interface Mailbox {
  readonly words: Int32Array;
  /** arguments: scalars, then addresses; then, at their fixed places, ITEMS, SCRATCH and SCRATCH_BYTES */
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
