/** The digests that name files on the Hub. */
import { createHash, type Hash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { IsologitError, systemError, withLocation } from "../core/errors.ts";
import type { HubFile } from "./files.ts";

const READ_BYTES = 4 * 1024 * 1024;

/** The hash of the digest that names a file: SHA-256 of its bytes, or git's SHA-1 of a header and its bytes. */
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

/**
 * The digest of the file at `path`, of the kind that `etag` has, in hexadecimal digits.
 *
 * @throws NOT_FOUND, IO_FAILED, FILE_CHANGED
 */
export async function digestOfFile(
  path: string,
  file: Pick<HubFile, "etag" | "size">,
  signal?: AbortSignal,
): Promise<string> {
  const hash = hashFor(file);
  try {
    await using handle = await open(path, "r");
    await hashFile(handle, file.size, hash, signal);
  } catch (error) {
    throw withLocation(systemError(error, { file: path }), { file: path });
  }
  return hash.digest("hex");
}
