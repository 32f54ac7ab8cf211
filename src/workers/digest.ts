/** Digests of a tensor, computed band by band: one SHA-256, and on request a CRC-32 of each chunk. */
import { createHash, type Hash } from "node:crypto";
import { crc32 } from "node:zlib";
import { CHUNK_BYTES } from "../../formats/format.ts";
import type { Checksum } from "./checksum.ts";

export class Digest {
  readonly #checksum: Checksum;
  readonly #sha = createHash("sha256");
  readonly #crcs: number[] = [];
  #filled = 0;

  /** @param checksum default: zlib's, for bytes in any memory */
  constructor(checksum: Checksum = crc32) {
    this.#checksum = checksum;
  }

  /** A checksum covers CHUNK_BYTES of the tensor, wherever bands end. */
  update(bytes: Uint8Array, checksums: boolean): void {
    this.#sha.update(bytes);
    if (!checksums) return;
    for (let at = 0; at < bytes.byteLength; ) {
      if (this.#filled === 0) this.#crcs.push(0);
      const size = Math.min(bytes.byteLength - at, CHUNK_BYTES - this.#filled);
      this.#crcs.push(this.#checksum(bytes.subarray(at, at + size), this.#crcs.pop()));
      this.#filled = (this.#filled + size) % CHUNK_BYTES;
      at += size;
    }
  }

  /** A copy of the SHA-256 of all bytes so far. */
  fork(): Hash {
    return this.#sha.copy();
  }

  /** Call it once, after the last byte. */
  result(): { readonly sha256: string; readonly crc32: readonly number[] } {
    return { sha256: this.#sha.digest("hex"), crc32: this.#crcs };
  }
}
