/** Opens a packed file with two reads: everything except side files and elements is then known. */
import { IsologitError } from "../../src/core/errors.ts";
import { sha256Bytes } from "../../src/core/hash.ts";
import type { ByteSource } from "../../src/core/io.ts";
import { readRange } from "../../src/core/io.ts";
import { HEAD_BYTES, type Head, parseHead, sameBytes } from "./head.ts";
import { type PackedDigests, parseSeals, sealBytes } from "./seals.ts";
import { CONFIG, checkPlaces, configBytes, type PackedIndex, parseIndex } from "./tensor-index.ts";

export interface Front {
  readonly head: Head;
  readonly index: PackedIndex;
  readonly digests: PackedDigests;
  /** the bytes of config.json, with checked digest; absent if the file has none */
  readonly config?: Uint8Array;
}

/**
 * Reads the head, then the index, the seals and config.json together, whose size the head gives.
 *
 * @param file name of the source in errors
 * @throws codes of exit status 3 for every deviation from docs/packed-format.md
 */
export async function readFront(source: ByteSource, file: string): Promise<Front> {
  if (source.size < HEAD_BYTES) {
    const message = `the file has ${source.size} bytes, a head takes ${HEAD_BYTES}`;
    throw new IsologitError("TRUNCATED", message, { file, offset: source.size });
  }
  const head = parseHead(await readRange(source, 0, HEAD_BYTES), source.size, file);
  const rest = await readRange(source, HEAD_BYTES, head.frontEnd - HEAD_BYTES);
  return { head, ...parseRest(head, rest, file) };
}

/** @param rest bytes from the end of the head to `head.frontEnd` */
function parseRest(head: Head, rest: Uint8Array, file: string): Omit<Front, "head"> {
  const sealsAt = head.index.size;
  const configAt = sealsAt + head.seals.size;

  const indexText = rest.subarray(0, sealsAt);
  if (!sameBytes(sha256Bytes(indexText), head.indexDigest)) {
    const message = "the index is not the one that was written: its digest differs from the head's";
    throw new IsologitError("DIGEST_MISMATCH", message, { file, offset: head.index.offset });
  }
  const index = parseIndex(indexText, file);
  if (sealBytes(index) !== head.seals.size) {
    const message = `seals of ${head.seals.size} bytes; this index needs ${sealBytes(index)}`;
    throw new IsologitError("HEADER_INVALID", message, { file, offset: head.seals.offset });
  }
  const sealsEnd = HEAD_BYTES + configAt;
  if (sealsEnd + configBytes(index) !== head.frontEnd) {
    const message = `the front ends at ${head.frontEnd}, config.json at ${sealsEnd + configBytes(index)}`;
    throw new IsologitError("HEADER_INVALID", message, { file, offset: head.frontEnd });
  }
  checkPlaces(index, sealsEnd, head.alignment, head.dataEnd, file);

  const seals = rest.subarray(sealsAt, configAt);
  const digests = parseSeals(seals, index, head.indexDigest, { file, offset: head.seals.offset });
  if (index.entries[0]?.path !== CONFIG) return { index, digests };
  const config = rest.subarray(configAt);
  if (Buffer.from(sha256Bytes(config)).toString("hex") !== digests.entries.get(CONFIG)) {
    const message = "config.json is not the one that was written: its digest differs";
    throw new IsologitError("DIGEST_MISMATCH", message, { file, offset: sealsEnd });
  }
  return { index, digests, config };
}
