/**
 * A lock file, so that only one process at a time downloads a blob. The process that has the lock updates the time of
 * the file regularly; the file of a killed process becomes old. The lock only avoids double work: a blob appears by a
 * rename after its digest was checked, so two downloads of one blob would do no harm.
 */
import { randomUUID } from "node:crypto";
import { link, rm, stat, utimes, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { systemError } from "../../core/errors.ts";
import { makeFolders } from "../../io/folders.ts";
import { interruptedError } from "../../io/retry.ts";

const TOUCH_MS = 2_000;
/** After five missing updates the process is taken for dead. */
const STALE_MS = 10_000;
const LOOK_MS = 100;

interface LockOptions {
  readonly signal?: AbortSignal | undefined;
  /** called once if another process has the lock */
  readonly waiting?: () => void;
}

/** Waits for the lock. @throws INTERRUPTED, IO_FAILED */
export async function acquireLock(path: string, options: LockOptions = {}): Promise<AsyncDisposable> {
  const { signal } = options;
  const ownPath = `${path}.${randomUUID()}`;
  try {
    await makeFolders(dirname(path));
    await writeFile(ownPath, `${process.pid} on ${hostname()}\n`);
    try {
      for (let first = true; !(await tryLink(ownPath, path)); first = false) {
        if (first) options.waiting?.();
        await pause(LOOK_MS, undefined, signal === undefined ? {} : { signal }).catch(() => {
          throw interruptedError(signal!);
        });
        if (await isStale(path)) await rm(path, { force: true });
      }
    } finally {
      await rm(ownPath, { force: true });
    }
  } catch (error) {
    throw systemError(error, { file: path });
  }
  const touch = setInterval(() => {
    const now = new Date();
    utimes(path, now, now).catch(() => {}); // the lock was removed as stale, or the disk is full: neither does harm
  }, TOUCH_MS);
  touch.unref();
  return {
    async [Symbol.asyncDispose]() {
      clearInterval(touch);
      await rm(path, { force: true }).catch((error) => {
        throw systemError(error, { file: path });
      });
    },
  };
}

/** Creating a hard link is atomic on every file system. */
async function tryLink(ownPath: string, path: string): Promise<boolean> {
  try {
    await link(ownPath, path);
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
