/** Trying again: what may heal by itself is tried a few times, each time after a longer pause. */
import { setTimeout as pause } from "node:timers/promises";
import { IsologitError } from "../core/errors.ts";

export interface RetryLimits {
  /** failures in a row, with nothing gained between them, that are the end */
  readonly failures: number;
  /** pause after the first failure; it doubles with each further one */
  readonly firstMs: number;
  /** longest pause, also where the server asks for more */
  readonly longestMs: number;
  /** hears of each failure after which it is tried again */
  readonly onRetry?: (failure: IsologitError, waitMs: number) => void;
}

/** Some 30 seconds of silence are survived; a server that asks for a minute is given it. */
export const RETRY_LIMITS: RetryLimits = { failures: 7, firstMs: 500, longestMs: 60_000 };

/** Tries of a server that never answered: a wrong address is told within seconds. */
const UNREACHED_FAILURES = 3;

/** A failure that may heal by itself, and what it is to be called when it does not. */
export class TransientError extends Error {
  readonly failure: IsologitError;
  /** what the server asked for */
  readonly waitMs: number | undefined;
  /** nothing has come from this server yet */
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
  /** Something was gained: failures are counted anew. */
  gained(): void;
  /** Waits until it makes sense to try again. @throws what does not heal, or has failed too often; INTERRUPTED */
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
      // Half of it by chance, so that many who failed together do not come back together.
      const own = doubled * (0.5 + Math.random() / 2);
      const waitMs = Math.min(Math.max(own, error.waitMs ?? 0), patience.longestMs);
      patience.onRetry?.(error.failure, waitMs);
      await pause(waitMs, undefined, signal === undefined ? {} : { signal }).catch(() => {
        throw interruptedError(signal!);
      });
    },
  };
}

/** Runs `work` until it succeeds, or fails for good. */
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

/** What cannot be stopped itself is left to itself. @throws INTERRUPTED, as soon as `signal` says so */
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

/** `Retry-After`: seconds, or a date. @returns milliseconds from now; undefined where there is none */
export function retryAfterMs(value: string | null | undefined, nowMs = Date.now()): number | undefined {
  if (value === null || value === undefined || value.trim() === "") return undefined;
  if (/^\d+$/.test(value.trim())) return Number(value) * 1000;
  const at = Date.parse(value);
  return Number.isNaN(at) ? undefined : Math.max(0, at - nowMs);
}
