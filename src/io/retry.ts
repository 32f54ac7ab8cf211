/** Repeats work that may succeed later, a few times, each time after a longer pause. */
import { setTimeout as pause } from "node:timers/promises";
import { IsologitError } from "../core/errors.ts";

export interface RetryLimits {
  /** number of failures in a row after which the work fails */
  readonly failures: number;
  /** pause after the first failure; it doubles with each further one */
  readonly firstMs: number;
  /** longest pause, even if the server asks for a longer one */
  readonly longestMs: number;
  /** called for each failure after which the work is repeated */
  readonly onRetry?: (failure: IsologitError, waitMs: number) => void;
}

/** Enough for some 30 seconds without an answer, and for a server that asks for a pause of one minute. */
export const RETRY_LIMITS: RetryLimits = { failures: 7, firstMs: 500, longestMs: 60_000 };

/** Fewer tries for a server that has never answered, so that a wrong address is reported within seconds. */
const UNREACHED_FAILURES = 3;

/** A failure after which another try may succeed. */
export class TransientError extends Error {
  /** the error to throw if no try succeeds */
  readonly failure: IsologitError;
  /** pause that the server asked for */
  readonly waitMs: number | undefined;
  /** this server has sent nothing yet */
  readonly unreached: boolean;

  constructor(failure: IsologitError, waitMs?: number, unreached = false) {
    super(failure.message, { cause: failure });
    this.unreached = unreached;
    this.name = "Passing";
    this.failure = failure;
    this.waitMs = waitMs;
  }
}

interface Attempts {
  /** Reports progress: the count of failures starts again. */
  gained(): void;
  /** Waits before the next try. @throws the error itself if it is not transient or came too often; INTERRUPTED */
  failed(error: unknown): Promise<void>;
}

export function createAttempts(patience: RetryLimits, signal?: AbortSignal): Attempts {
  let failures = 0;
  return {
    gained() {
      failures = 0;
    },
    async failed(error) {
      if (signal?.aborted) throw interruptedError(signal);
      if (!(error instanceof TransientError)) throw error;
      const most = error.unreached ? Math.min(UNREACHED_FAILURES, patience.failures) : patience.failures;
      if (++failures >= most) throw error.failure;
      const doubled = patience.firstMs * 2 ** (failures - 1);
      // Half of the pause is random, so that many clients that failed together do not return together.
      const own = doubled * (0.5 + Math.random() / 2);
      const waitMs = Math.min(Math.max(own, error.waitMs ?? 0), patience.longestMs);
      patience.onRetry?.(error.failure, waitMs);
      await pause(waitMs, undefined, signal === undefined ? {} : { signal }).catch(() => {
        throw interruptedError(signal!);
      });
    },
  };
}

/** Runs `work` until it succeeds or fails finally. */
export async function retry<T>(
  work: () => Promise<T>,
  patience: RetryLimits,
  signal?: AbortSignal,
): Promise<T> {
  const tries = createAttempts(patience, signal);
  for (;;) {
    try {
      return await work();
    } catch (error) {
      await tries.failed(error);
    }
  }
}

/** Waits for `work`, which itself cannot be stopped. @throws INTERRUPTED as soon as `signal` is aborted */
export async function raceAbort<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return await work;
  let leave = () => {};
  const left = new Promise<never>((_, reject) => {
    leave = () => reject(interruptedError(signal));
    if (signal.aborted) leave();
    else signal.addEventListener("abort", leave, { once: true });
  });
  return await Promise.race([left, work]).finally(() => signal.removeEventListener("abort", leave));
}

export function interruptedError(signal: AbortSignal): IsologitError {
  return signal.reason instanceof IsologitError
    ? signal.reason
    : new IsologitError("INTERRUPTED", "stopped on request", {}, { cause: signal.reason });
}

/** `Retry-After`: seconds, or a date. @returns milliseconds from now; undefined if there is none */
export function retryAfterMs(value: string | null | undefined, nowMs = Date.now()): number | undefined {
  if (value === null || value === undefined || value.trim() === "") return undefined;
  if (/^\d+$/.test(value.trim())) return Number(value) * 1000;
  const at = Date.parse(value);
  return Number.isNaN(at) ? undefined : Math.max(0, at - nowMs);
}
