/**
 * Downloads one file completely or not at all. The bytes are appended to a partial file, whose length tells where an
 * interrupted download continues. The digest is computed meanwhile; only if it is right the file gets its final name.
 */
import { type FileHandle, open, rename, rm, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { IsologitError, systemError } from "../../core/errors.ts";
import { makeFolders } from "../../io/folders.ts";
import { readThroughBreaks } from "../../io/http.ts";
import type { Connection } from "../connection.ts";
import { hashFile, hashFor } from "../digest.ts";
import type { HubFile } from "../files.ts";
import { remoteFile } from "./remote.ts";

interface TransferRequest {
  readonly repo: string;
  readonly commit: string;
  readonly file: HubFile;
  /** path of the partial file; a download continues after the bytes of an earlier run */
  readonly partial: string;
  /** final path; the file appears by a rename after its digest was checked */
  readonly final: string;
  readonly signal?: AbortSignal | undefined;
  /**
   * receives the number of new bytes: first those of an earlier run, then those received; negative if bytes are
   * discarded
   */
  readonly advance?: (bytes: number) => void;
}

/** @returns bytes received. @throws TRANSFER_DAMAGED, NETWORK, DISK_FULL, INTERRUPTED and others of exit 4 */
export async function transferFile(connection: Connection, request: TransferRequest): Promise<number> {
  const { file, partial } = request;
  const at = { file: file.path };
  try {
    await makeFolders(dirname(partial));
    let fetched = 0;
    // An existing partial file may be damaged: then the whole file is downloaded again, once.
    for (const last of [false, true]) {
      const { received, digest } = await fillPartial(connection, request);
      fetched += received;
      if (digest === file.etag) {
        await makeFolders(dirname(request.final));
        await rename(partial, request.final);
        return fetched;
      }
      await rm(partial, { force: true });
      request.advance?.(-file.size);
      if (last) {
        const message = `the received file has digest ${digest}, expected ${file.etag}; it was fetched twice`;
        throw new IsologitError("TRANSFER_DAMAGED", message, at);
      }
    }
    return fetched;
  } catch (error) {
    throw systemError(error, at);
  }
}

async function fillPartial(
  connection: Connection,
  request: TransferRequest,
): Promise<{ received: number; digest: string }> {
  const { file, partial, signal, advance } = request;
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
    const remote = remoteFile(connection, request.repo, request.commit, file);
    const { patience } = connection.settings;
    let received = 0;
    const out = appender(handle);
    try {
      for await (const bytes of readThroughBreaks(remote, there, file.size, { patience, signal })) {
        hash.update(bytes);
        await out.write(bytes);
        received += bytes.byteLength;
        advance?.(bytes.byteLength);
      }
    } finally {
      await out.flush(); // also after a failure: the next run continues after these bytes
    }
    await handle.datasync();
    return { received, digest: hash.digest("hex") };
  } finally {
    await handle.close();
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

/** A killed process loses at most two blocks of a file: one that is being filled and one that is being written. */
const BLOCK_BYTES = 512 * 1024;

interface Appender {
  /** Adds `bytes` to a block; waits only while an earlier block is being written. */
  write(bytes: Uint8Array): Promise<void>;
  /** Writes the last block; afterwards every byte is in the file. */
  flush(): Promise<void>;
}

/** @param handle opened to append */
function appender(handle: FileHandle): Appender {
  let gathered: Uint8Array[] = [];
  let size = 0;
  let writing = Promise.resolve();
  async function turn(): Promise<void> {
    await writing;
    const block = gathered;
    [gathered, size] = [[], 0];
    writing = writeAll(handle, block);
    writing.catch(() => {}); // marks the promise as handled; the next `write` or `flush` awaits it
  }
  return {
    async write(bytes) {
      gathered.push(bytes);
      size += bytes.byteLength;
      if (size >= BLOCK_BYTES) await turn();
    },
    async flush() {
      await turn();
      await writing;
    },
  };
}

/** Continues after a short write. */
async function writeAll(handle: FileHandle, block: readonly Uint8Array[]): Promise<void> {
  let rest = block.filter(({ byteLength }) => byteLength > 0);
  while (rest.length > 0) {
    let { bytesWritten } = await handle.writev(rest);
    rest = rest.flatMap((bytes) => {
      const done = Math.min(bytesWritten, bytes.byteLength);
      bytesWritten -= done;
      return done === bytes.byteLength ? [] : [bytes.subarray(done)];
    });
  }
}
