/**
 * The heartbeat of a lock: its holder renews the time of the link again and again. A process on another host cannot see
 * whether the holder runs, but it sees whether that time changes; the clocks of the hosts need not agree.
 */

import { lutimes } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { statIfPresent } from "../stamps.ts";

export const BEAT_SECONDS = 10;

/** A lock without a beat for so long was left; a busy file server may delay several beats. */
const SILENCE_SECONDS = 60;

/** Renews the time of a lock. @returns false if the file system cannot do that */
export async function beat(path: string): Promise<boolean> {
  const now = new Date();
  return lutimes(path, now, now).then(
    () => true,
    () => false,
  );
}

/** Renews the time of a lock until `stop`, or until the lock is not held any more. */
export function keepBeating(
  path: string,
  isHeld: () => Promise<boolean>,
  lose: () => void,
  everyMs = BEAT_SECONDS * 1000,
): { readonly stop: () => void } {
  const timer = setInterval(async () => {
    // a file server that fails for a moment says nothing about the lock
    if (await isHeld().catch(() => true)) return void (await beat(path));
    clearInterval(timer);
    lose();
  }, everyMs);
  timer.unref();
  return { stop: () => clearInterval(timer) };
}

/** Sees over time, and without waiting, which locks are beating: a lock counts as left when it has shown no beat for a minute. */
export class BeatWatch {
  /** by path: the time of the lock, and when this process saw it first, milliseconds */
  readonly #seen = new Map<string, { readonly mtimeNs: bigint; readonly at: number }>();
  readonly #silenceMs: number;

  constructor(silenceMs = SILENCE_SECONDS * 1000) {
    this.#silenceMs = silenceMs;
  }

  async isBeating(path: string): Promise<boolean> {
    const now = await statIfPresent(path);
    if (now === null) return false;
    const before = this.#seen.get(path);
    if (before?.mtimeNs === now.mtimeNs) return performance.now() - before.at < this.#silenceMs;
    this.#seen.set(path, { mtimeNs: now.mtimeNs, at: performance.now() });
    return true;
  }
}

/**
 * Watches a lock until its time changes, or for SILENCE_SECONDS steps.
 *
 * @returns true if the time did not change, or the lock is gone
 */
export async function isSilent(path: string, stepMs = 1000): Promise<boolean> {
  const first = await statIfPresent(path);
  if (first === null) return true;
  for (let waited = 0; waited < SILENCE_SECONDS; waited++) {
    await sleep(stepMs);
    const now = await statIfPresent(path);
    if (now === null || now.ino !== first.ino) return false; // released, or taken by another process
    if (now.mtimeNs !== first.mtimeNs) return false;
  }
  return true;
}
