/**
 * One file of the Hub to one file on disk, whole or not at all. What arrives goes into a partial file in order, so that
 * its length says where to go on; the digest runs along, and only when it agrees does the file get its name.
 */
import { createHash, type Hash } from "node:crypto";
import { type FileHandle, mkdir, open, rename, rm, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { IsologitError, systemError } from "../core/errors.ts";
import { readThroughBreaks } from "../io/http.ts";
import { appender } from "./append.ts";
import type { Connection } from "./connection.ts";
import type { HubFile } from "./listing.ts";
import { remoteFile } from "./remote.ts";

export interface Transfer {
  readonly repo: string;
  readonly commit: string;
  readonly file: HubFile;
  /** grows in order; what an earlier run left is gone on from */
  readonly partial: string;
  /** appears by a rename, once all is there */
  readonly final: string;
  readonly signal?: AbortSignal | undefined;
  /** bytes that are there now: found first, then as they come; negative where damaged ones are thrown away */
  readonly advance?: (bytes: number) => void;
}

const READ_BYTES = 4 * 1024 * 1024;

/** @returns bytes that were fetched now. @throws TRANSFER_DAMAGED, NETWORK, DISK_FULL, INTERRUPTED and others of exit 4 */
export async function transfer(connection: Connection, wanted: Transfer): Promise<number> {
  const { file, partial } = wanted;
  const at = { file: file.path };
  try {
    await mkdir(dirname(partial), { recursive: true });
    let fetched = 0;
    // What was left may be another's, or damaged: then all of it is fetched anew, once.
    for (const last of [false, true]) {
      const { came, digest } = await fill(connection, wanted);
      fetched += came;
      if (digest === file.etag) {
        await mkdir(dirname(wanted.final), { recursive: true });
        await rename(partial, wanted.final);
        return fetched;
      }
      await rm(partial, { force: true });
      wanted.advance?.(-file.size);
      if (last) {
        const message = `what came has digest ${digest}, expected ${file.etag}; it was fetched twice`;
        throw new IsologitError("TRANSFER_DAMAGED", message, at);
      }
    }
    return fetched;
  } catch (error) {
    throw systemError(error, at);
  }
}

async function fill(connection: Connection, wanted: Transfer): Promise<{ came: number; digest: string }> {
  const { file, partial, signal, advance } = wanted;
  const handle = await open(partial, "a+");
  try {
    let { size: there } = await handle.stat();
    if (there > file.size) {
      await handle.truncate(0);
      there = 0;
    }
    await refuseFullDisk(partial, file, there);
    const hash = hashFor(file);
    await hashFile(handle, there, hash, signal);
    advance?.(there);
    const remote = remoteFile(connection, wanted.repo, wanted.commit, file);
    const { patience } = connection.settings;
    let came = 0;
    const out = appender(handle);
    try {
      for await (const bytes of readThroughBreaks(remote, there, file.size, { patience, signal })) {
        hash.update(bytes);
        await out.write(bytes);
        came += bytes.byteLength;
        advance?.(bytes.byteLength);
      }
    } finally {
      await out.flush(); // also what came before a break: the next run goes on from it
    }
    await handle.datasync();
    return { came, digest: hash.digest("hex") };
  } finally {
    await handle.close();
  }
}

/** The digest that names a file on the Hub: SHA-256 of its bytes, or git's SHA-1 over a header and its bytes. */
export function hashFor({ etag, size }: Pick<HubFile, "etag" | "size">): Hash {
  return etag.length === 64 ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
}

/** Adds the first `size` bytes of an open file to a hash. */
export async function hashFile(
  handle: FileHandle,
  size: number,
  hash: Hash,
  signal?: AbortSignal,
): Promise<void> {
  const buffer = new Uint8Array(Math.min(READ_BYTES, Math.max(size, 1)));
  for (let done = 0; done < size; ) {
    signal?.throwIfAborted();
    const { bytesRead } = await handle.read(buffer, 0, Math.min(buffer.byteLength, size - done), done);
    if (bytesRead === 0) throw new IsologitError("FILE_CHANGED", "the file became shorter while it was read");
    hash.update(buffer.subarray(0, bytesRead));
    done += bytesRead;
  }
}

async function refuseFullDisk(path: string, file: HubFile, there: number): Promise<void> {
  const { bavail, bsize } = await statfs(dirname(path));
  const needed = file.size - there;
  if (bavail * bsize >= needed) return;
  throw new IsologitError("DISK_FULL", `${needed} bytes are needed, ${bavail * bsize} are free`, {
    file: file.path,
  });
}
