/**
 * CRC-32 of bytes in the memory that a worker shares. A kernel replaces a long run by a short one with the same CRC, several
 * times as fast as zlib, which computes the rest.
 */
import { crc32 } from "node:zlib";
import { instantiateModule } from "../../kernels/module.ts";

/** The CRC-32 of some bytes followed by `bytes`, from the CRC-32 of the former. */
export type Checksum = (bytes: Uint8Array, sum?: number) => number;

const WORD_BYTES = 16;
/** Bytes that the kernel leaves. */
const REST_BYTES = 300 * WORD_BYTES;
/** What the kernel leaves, and a block of what it removes. */
export const CHECKSUM_SCRATCH_BYTES = REST_BYTES + 1024 * WORD_BYTES;
/** From here on it is worth a call. */
const LEAST_BYTES = 4 * REST_BYTES;

/**
 * @param memory    contains all bytes that the result is called with
 * @param scratchAt address of CHECKSUM_SCRATCH_BYTES that nothing else uses
 */
export async function createChecksum(memory: WebAssembly.Memory, scratchAt: number): Promise<Checksum> {
  const { foldCrc } = await instantiateModule(memory);
  return (bytes, sum = 0) => {
    if (bytes.byteLength < LEAST_BYTES) return crc32(bytes, sum);
    const words = Math.floor(bytes.byteLength / WORD_BYTES);
    const at = foldCrc!(bytes.byteOffset, words, ~sum, scratchAt);
    const rest = crc32(new Uint8Array(memory.buffer, at, REST_BYTES), ALREADY_ADDED);
    return crc32(bytes.subarray(words * WORD_BYTES), rest);
  };
}

/** A CRC begins with all bits set, and the kernel has added them; the complement of this sum has none. */
const ALREADY_ADDED = 0xffffffff;
