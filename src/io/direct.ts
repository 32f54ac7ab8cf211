/**
 * Writes past the page cache (O_DIRECT of Linux): the disk takes the bytes from the buffer, and no processor time goes into
 * copies of them. Memory, place and size of such a write must be multiples of a block.
 */
import { constants, type FileHandle, open } from "node:fs/promises";

/**
 * Disks ask for 4096 bytes at most. But the page cache must not hold a page that is partly written past it, and the largest pages in use
 * have 64 KiB.
 */
export const DIRECT_BLOCK = 65536;

/** Shorter writes gain nothing. */
const MIN_BYTES = 2 * DIRECT_BLOCK;

/** Whether this system has direct writes at all. */
export const hasDirectWrites = constants.O_DIRECT !== undefined;

/** Opens a file for direct writes. @throws EINVAL where the file system has none */
export async function openDirect(path: string): Promise<FileHandle> {
  return await open(path, constants.O_WRONLY | constants.O_DIRECT | constants.O_NOFOLLOW);
}

/**
 * The largest part of a write that can go past the page cache: whole blocks of the file that are whole blocks of memory.
 *
 * @returns start and end in `bytes`, or null
 */
export function directPart(bytes: Uint8Array, offset: number): readonly [from: number, to: number] | null {
  // only the memory of WebAssembly is known to begin at a page
  const isShared = bytes.buffer instanceof SharedArrayBuffer;
  if (!isShared || (bytes.byteOffset - offset) % DIRECT_BLOCK !== 0) return null;
  const from = -offset & (DIRECT_BLOCK - 1);
  const to = bytes.byteLength - ((offset + bytes.byteLength) % DIRECT_BLOCK);
  return to - from < MIN_BYTES ? null : [from, to];
}
