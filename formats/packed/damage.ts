/** Reads a whole packed file once and compares it with its digests. */
import type { SealedSpan } from "../../src/core/checkpoint.ts";
import { IsologitError } from "../../src/core/errors.ts";
import type { ByteSource } from "../../src/core/io.ts";
import { damageOfSpan } from "../../src/core/sealed-spans.ts";
import { CHUNK_BYTES } from "../format.ts";
import type { Front } from "./front.ts";

/**
 * All faults of the bytes after the front, in file order: chunks with another checksum, other digests, padding that is not
 * zero. The front was checked when it was read.
 *
 * Each byte is read once, through one buffer of a chunk.
 */
export async function* damageOf(
  source: ByteSource,
  front: Front,
  file: string,
  signal?: AbortSignal,
): AsyncGenerator<IsologitError> {
  const buffer = new Uint8Array(Math.min(CHUNK_BYTES, front.head.dataEnd));
  const read = async (offset: number, size: number): Promise<Uint8Array> => {
    const bytes = buffer.subarray(0, size);
    await source.readInto(bytes, offset, signal);
    return bytes;
  };
  let end = front.head.seals.offset + front.head.seals.size;
  for (const seal of sealedSpans(front, file)) {
    const gap = seal.offset - end;
    const dirty = gap === 0 ? -1 : (await read(end, gap)).findIndex((byte) => byte !== 0);
    if (dirty !== -1) {
      yield new IsologitError("PADDING_INVALID", `a byte of padding before ${seal.what} is not zero`, {
        file,
        offset: end + dirty,
      });
    }
    yield* damageOfSpan(seal, read, buffer.byteLength);
    end = seal.offset + seal.size;
  }
}

/** All spans with seals, in the order of the file. */
export function sealedSpans({ index, digests }: Front, file: string): readonly SealedSpan[] {
  return [
    ...index.entries.map(({ path, offset, size }) => {
      return { what: path, file, offset, size, sha256: digests.entries.get(path)! };
    }),
    ...index.shards.map(({ path, offset, size }) => {
      return { what: `the header of ${path}`, file, offset, size, sha256: digests.shards.get(path)! };
    }),
    ...index.tensors.map(({ name, offset, size }) => {
      const { sha256, crc32: sums } = digests.tensors.get(name)!;
      const crc32 = { chunkBytes: CHUNK_BYTES, sums };
      return { what: name, tensor: name, file, offset, size, sha256, crc32 };
    }),
  ];
}
