/**
 * One process at a time fetches a blob. The lock is a file that its holder touches while it lives; a holder that was
 * killed leaves one that grows old. It only saves work: a blob appears by a rename, once its digest agrees, so two
 * holders would do no harm.
 */
import { randomUUID } from "node:crypto";
import { link, mkdir, rm, stat, utimes, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { systemError } from "../../core/errors.ts";
import { interruptedError } from "../../io/retry.ts";

const TOUCH_MS = 2_000;
/** Five touches missed: its holder is gone, or so slow that it may as well be. */
const STALE_MS = 10_000;
const LOOK_MS = 100;

export interface LockOptions {
  readonly signal?: AbortSignal | undefined;
  /** told once, when another process is found at it */
  readonly waiting?: () => void;
}

/** Waits for the lock. @throws INTERRUPTED, IO_FAILED */
export async function locked(path: string, options: LockOptions = {}): Promise<AsyncDisposable> {
  const { signal } = options;
  const mine = `${path}.${randomUUID()}`;
  try {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(mine, `${process.pid} on ${hostname()}\n`);
    try {
      for (let told = false; !(await taken(mine, path)); told = true) {
        if (!told) options.waiting?.();
        await pause(LOOK_MS, undefined, signal === undefined ? {} : { signal }).catch(() => {
          throw interruptedError(signal!);
        });
        if (await isStale(path)) await rm(path, { force: true });
      }
    } finally {
      await rm(mine, { force: true });
    }
  } catch (error) {
    throw systemError(error, { file: path });
  }
  const touch = setInterval(() => {
    const now = new Date();
    utimes(path, now, now).catch(() => {}); // taken for stale, or the disk is full: no harm either way
  }, TOUCH_MS);
  touch.unref();
  return {
    async [Symbol.asyncDispose]() {
      clearInterval(touch);
      await rm(path, { force: true });
    },
  };
}

/** A hard link comes into being at once or not at all, on every file system. */
async function taken(mine: string, path: string): Promise<boolean> {
  try {
    await link(mine, path);
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") return false;
    throw error;
  }
}

async function isStale(path: string): Promise<boolean> {
  const about = await stat(path).catch(() => undefined);
  return about !== undefined && Date.now() - about.mtimeMs > STALE_MS;
}
