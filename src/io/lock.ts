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
import { hasEnded, markOfThisProcess, ProcessMark } from "./process-mark.ts";

const Holder = z.object({ ...ProcessMark.shape, since: z.string(), token: z.string() });
type Holder = z.infer<typeof Holder>;

const MAX_TRIES = 10;
/** largest lock that is a file, bytes */
const MAX_BYTES = 65_536;

export const lockPath = (destination: string): string => `${stagingPath(destination)}.lock`;

/**
 * Takes the lock; disposal releases it. A lock whose process has ended is taken over.
 *
 * @throws DESTINATION_BUSY if another process holds it, or may hold it
 */
export async function lockDestination(destination: string): Promise<AsyncDisposable> {
  const path = lockPath(destination);
  const token = randomBytes(8).toString("hex");
  const holder: Holder = { ...(await markOfThisProcess()), since: new Date().toISOString(), token };
  let made: string | undefined;
  for (let tries = 1; ; tries++) {
    try {
      const folders = await makeFolders(dirname(path));
      made = folders[0] ?? made;
      for (const folder of folders) await syncFolder(dirname(folder));
      await take(path, holder);
      break;
    } catch (error) {
      // Another run may have removed the folders that it had created.
      if (codeOf(error) !== "ENOENT" || tries === MAX_TRIES) throw systemError(error, { file: path });
    }
  }
  return {
    // A lock that cannot be removed is taken over by the next process, which sees that this one has ended.
    async [Symbol.asyncDispose]() {
      if ((await holderAt(path).catch(() => null))?.token === token) await unlink(path).catch(() => {});
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
    if (holder === null || (await hasEnded(holder))) return "abandoned";
    const own = await markOfThisProcess();
    return holder.host === own.host && holder.pids === own.pids ? "in use" : "unknown";
  } catch (error) {
    if (error instanceof IsologitError && error.code === "DESTINATION_BUSY") return "unknown"; // no lock of this program
    throw systemError(error, { file: path });
  }
}

async function take(path: string, holder: Holder): Promise<void> {
  while (!(await place(path, holder))) {
    const other = await holderAt(path);
    if (other === null) continue; // released meanwhile
    if (other.token === holder.token) return; // a network file system sent the request twice
    if (!(await hasEnded(other))) throw busy(path, other);
    // Several processes may find the lock abandoned. The one that creates this second lock may replace it.
    const guard = `${path}.${other.token}`;
    await take(guard, holder);
    if ((await holderAt(path))?.token === other.token) return await rename(guard, path);
    await unlink(guard);
  }
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
 * @throws DESTINATION_BUSY for a lock that does not describe its holder
 */
async function holderAt(path: string): Promise<Holder | null> {
  const text = await textAt(path).catch((error) => {
    if (codeOf(error) === "ENOENT") return null;
    throw error;
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

function busy(path: string, holder: Holder | null): IsologitError {
  const who =
    holder === null
      ? "an unknown process holds its lock"
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
