/**
 * The lock of a destination: `DST.partial.lock`, beside the staging folder. It is a symbolic link whose target describes
 * the process that holds the lock: a link is created together with its content in one step, and never replaces a file.
 */
import { randomBytes } from "node:crypto";
import { lstat, open, readFile, readlink, rename, rmdir, symlink, unlink } from "node:fs/promises";
import { dirname } from "node:path";
import { z } from "zod";
import { IsologitError, systemError } from "../core/errors.ts";
import { stagingPath } from "./destination.ts";
import { makeFolders, syncFolder } from "./folders.ts";
import { BEAT_SECONDS, beat, isSilent, keepBeating } from "./processes/heartbeat.ts";
import { hasEnded, isInSight, markOfThisProcess, ProcessMark } from "./processes/process-mark.ts";

const Holder = z.object({
  ...ProcessMark.shape,
  since: z.string(),
  token: z.string(),
  /** the holder renews the time of the lock so often */
  beatSeconds: z.number().positive().max(3600).optional(),
});
type Holder = z.infer<typeof Holder>;

const MAX_TRIES = 10;
/** largest lock that is a file, bytes */
const MAX_BYTES = 65_536;

/**
 * Tokens of locks that this process holds no more and could not remove. It runs still, so no other process takes these locks
 * over; without this note, the process would wait for itself.
 */
const unremoved = new Set<string>();

export const lockPath = (destination: string): string => `${stagingPath(destination)}.lock`;

/** A lock that this process holds; disposal releases it. */
export interface Lock extends AsyncDisposable {
  /** aborted when another process has taken the lock over */
  readonly lost: AbortSignal;
  /** whether this process holds it still */
  isHeld(): Promise<boolean>;
}

export interface LockOptions {
  /**
   * renew the time of the lock. After a minute without that, a process on another host takes the lock over: an engine may
   * start a task again on another host after the first host failed. Only for work that two processes may do at once
   */
  readonly beats?: boolean;
}

/**
 * Takes the lock of a destination. A lock whose process has ended is taken over.
 *
 * @throws DESTINATION_BUSY if another process holds it, or may hold it
 */
export async function lockDestination(destination: string, options: LockOptions = {}): Promise<Lock> {
  return await lockAt(lockPath(destination), options);
}

/** As `lockDestination`, for a lock at any path. */
export async function lockAt(path: string, { beats = false }: LockOptions = {}): Promise<Lock> {
  const token = randomBytes(8).toString("hex");
  const mark = { ...(await markOfThisProcess()), since: new Date().toISOString(), token };
  let holder: Holder = beats ? { ...mark, beatSeconds: BEAT_SECONDS } : mark;
  let made: string | undefined;
  for (let tries = 1; ; tries++) {
    try {
      const folders = await makeFolders(dirname(path));
      made = folders[0] ?? made;
      for (const folder of folders) await syncFolder(dirname(folder));
      await take(path, holder);
      if (holder.beatSeconds === undefined || (await beat(path))) break;
      await unlink(path); // this file system keeps no times of links
      holder = mark;
    } catch (error) {
      // Another run may have removed the folders that it had created.
      if (codeOf(error) === "ENOENT" && tries < MAX_TRIES) continue;
      if (codeOf(error) !== "DESTINATION_BUSY") unremoved.add(token); // the link may have been made
      throw systemError(error, { file: path });
    }
  }
  const isHeld = async () => (await holderAt(path))?.token === token;
  const lost = new AbortController();
  const beating =
    holder.beatSeconds === undefined
      ? null
      : keepBeating(path, isHeld, () => lost.abort(busy(path, null, "another process took its lock over")));
  return {
    lost: lost.signal,
    isHeld,
    // A lock that cannot be removed is taken over by this process, or by another process that sees that this one has ended.
    async [Symbol.asyncDispose]() {
      beating?.stop();
      try {
        if (await isHeld()) await unlink(path);
      } catch {
        unremoved.add(token);
      }
      if (made !== undefined) await removeEmpty(dirname(path), made);
    },
  };
}

/** "abandoned" also without a lock: a process that ends by an error removes its lock and may leave staged files. */
export type LockState = "in use" | "abandoned" | "unknown";

/** @param path of the lock. @throws IO_FAILED */
export async function lockState(path: string): Promise<LockState> {
  try {
    const holder = await holderAt(path);
    if (holder === null || (await isGivenUp(holder))) return "abandoned";
    const own = await markOfThisProcess();
    return holder.host === own.host && holder.pids === own.pids ? "in use" : "unknown";
  } catch (error) {
    if (error instanceof IsologitError && error.code === "DESTINATION_BUSY") return "unknown"; // no lock of this program
    throw error;
  }
}

async function take(path: string, holder: Holder): Promise<void> {
  while (!(await place(path, holder))) {
    const other = await holderAt(path);
    if (other === null) continue; // released meanwhile
    if (other.token === holder.token) return; // a network file system sent the request twice
    if (!(await wasLeft(path, other))) throw busy(path, other);
    // Several processes may find the lock abandoned. The one that creates this second lock may replace it.
    const guard = `${path}.${other.token}`;
    await take(guard, holder);
    if ((await holderAt(path))?.token === other.token) return await rename(guard, path);
    await unlink(guard);
  }
}

async function isGivenUp(holder: Holder): Promise<boolean> {
  return unremoved.has(holder.token) || (await hasEnded(holder));
}

async function wasLeft(path: string, holder: Holder): Promise<boolean> {
  if (await isGivenUp(holder)) return true;
  return holder.beatSeconds !== undefined && !(await isInSight(holder)) && (await isSilent(path));
}

/** @returns false if there is a lock already */
async function place(path: string, holder: Holder): Promise<boolean> {
  const text = JSON.stringify(holder);
  try {
    await symlink(text, path);
    return true;
  } catch (error) {
    if (codeOf(error) === "EEXIST") return false;
    if (!["EPERM", "ENOSYS", "ENOTSUP", "EOPNOTSUPP"].includes(codeOf(error))) throw error;
  }
  // This file system has no symbolic links. A crash between the next two calls leaves an empty lock, which no process takes over.
  const file = await open(path, "wx").catch((error) => {
    if (codeOf(error) === "EEXIST") return null;
    throw error;
  });
  await file?.writeFile(text);
  await file?.close();
  return file !== null;
}

/**
 * @returns null if there is no lock
 * @throws DESTINATION_BUSY for a lock that does not describe its holder; IO_FAILED
 */
async function holderAt(path: string): Promise<Holder | null> {
  const text = await textAt(path).catch((error) => {
    if (codeOf(error) === "ENOENT") return null;
    throw systemError(error, { file: path });
  });
  if (text === null) return null;
  try {
    return Holder.parse(JSON.parse(text));
  } catch {
    throw busy(path, null);
  }
}

/** Text of a lock; empty for anything that cannot be a lock, such as a pipe, which would never end, or a large file. */
async function textAt(path: string): Promise<string> {
  const about = await lstat(path);
  if (about.isSymbolicLink()) return await readlink(path);
  return about.isFile() && about.size <= MAX_BYTES ? await readFile(path, "utf8") : "";
}

function busy(
  path: string,
  holder: Holder | null,
  unknown = "an unknown process holds its lock",
): IsologitError {
  const who =
    holder === null
      ? unknown
      : `process ${holder.pid} on ${holder.host} has been writing it since ${holder.since}`;
  const next = `wait until that process ends, then use \`resume\`; if it ended long ago, delete ${path}`;
  return new IsologitError("DESTINATION_BUSY", who, { file: path }, { next });
}

/** Removes the empty folders that were created for the lock, the innermost first. */
async function removeEmpty(innermost: string, outermost: string): Promise<void> {
  for (let folder = innermost; folder.length >= outermost.length; folder = dirname(folder)) {
    if (
      !(await rmdir(folder).then(
        () => true,
        () => false,
      ))
    )
      return;
  }
}

const codeOf = (error: unknown): string =>
  error instanceof Error && "code" in error ? String(error.code) : "";
