import { IsologitError } from "../../src/core/errors.ts";
import { sha256Bytes } from "../../src/core/hash.ts";

/** A high bit, a name, a line feed: they reveal transfers that drop bits or convert line ends. */
export const MAGIC = Uint8Array.from([0x89, 0x49, 0x53, 0x4f, 0x4c, 0x4f, 0x47, 0x0a]); // \x89ISOLOG\n
export const HEAD_BYTES = 128;
const VERSION = 1;
/** 256 is for copies to accelerators; 4096 for direct I/O and for mapping by pages. */
export const ALIGNMENTS: readonly number[] = [256, 4096];

/** A tensor takes about 120 bytes; 64 MiB describe half a million tensors, five times those of the largest known MoE. */
export const MAX_INDEX_BYTES = 64 * 1024 * 1024;
/** 76 bytes for a tensor of one chunk, and 4 more for each further 16 MiB: enough for a petabyte of weights. */
const MAX_SEAL_BYTES = 512 * 1024 * 1024;
/** config.json is read on opening. Published configs have a few KiB; a list of the settings of every layer has 1 MiB. */
export const MAX_CONFIG_BYTES = 16 * 1024 * 1024;

export interface Range {
  readonly offset: number;
  readonly size: number;
}

export interface Head {
  readonly alignment: number;
  readonly index: Range;
  /** SHA-256 of the index's bytes */
  readonly indexDigest: Uint8Array;
  readonly seals: Range;
  /** the head, the index, the seals and config.json end here: two reads open the file */
  readonly frontEnd: number;
  /** the sealed part ends here; only a certificate may follow */
  readonly dataEnd: number;
}

export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/** Offset of each field of the head. */
const AT = {
  version: 8,
  flags: 12,
  headBytes: 16,
  alignment: 20,
  index: 24,
  seals: 40,
  frontEnd: 56,
  dataEnd: 64,
  indexDigest: 72,
  headDigest: 104, // the first 24 bytes of the SHA-256 of all fields before
} as const;

export function encodeHead(head: Head): Uint8Array {
  const bytes = new Uint8Array(HEAD_BYTES);
  const view = new DataView(bytes.buffer);
  const u64 = (offset: number, value: number) => view.setBigUint64(offset, BigInt(value), true);
  bytes.set(MAGIC);
  view.setUint32(AT.version, VERSION, true);
  view.setUint32(AT.headBytes, HEAD_BYTES, true);
  view.setUint32(AT.alignment, head.alignment, true);
  u64(AT.index, head.index.offset);
  u64(AT.index + 8, head.index.size);
  u64(AT.seals, head.seals.offset);
  u64(AT.seals + 8, head.seals.size);
  u64(AT.frontEnd, head.frontEnd);
  u64(AT.dataEnd, head.dataEnd);
  bytes.set(head.indexDigest, AT.indexDigest);
  bytes.set(headDigest(bytes), AT.headDigest);
  return bytes;
}

function headDigest(bytes: Uint8Array): Uint8Array {
  return sha256Bytes(bytes.subarray(0, AT.headDigest)).subarray(0, HEAD_BYTES - AT.headDigest);
}

/** Whether bytes begin like a packed file. */
export function hasMagic(bytes: Uint8Array): boolean {
  return bytes.byteLength >= MAGIC.byteLength && sameBytes(bytes.subarray(0, MAGIC.byteLength), MAGIC);
}

/**
 * The head, with every field checked before its number is used to read or to allocate.
 *
 * @param bytes     the first HEAD_BYTES of the file
 * @param fileSize  bytes of the whole file
 * @throws HEADER_INVALID, VERSION_UNSUPPORTED, DIGEST_MISMATCH, SIZE_UNSAFE, LIMIT_EXCEEDED, TRUNCATED
 */
export function parseHead(bytes: Uint8Array, fileSize: number, file: string): Head {
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEAD_BYTES);
  const u32 = (offset: number) => view.getUint32(offset, true);
  const u64 = (offset: number): number => {
    const value = view.getBigUint64(offset, true);
    if (value <= Number.MAX_SAFE_INTEGER) return Number(value);
    throw new IsologitError("SIZE_UNSAFE", `a number in the head is ${value}, more than 2^53`, {
      file,
      offset,
    });
  };
  if (!hasMagic(bytes)) {
    throw new IsologitError("HEADER_INVALID", "the file does not begin like a packed file", {
      file,
      offset: 0,
    });
  }
  if (u32(AT.version) !== VERSION) {
    const message = `format version ${u32(AT.version)}; this reader knows ${VERSION}`;
    throw new IsologitError("VERSION_UNSUPPORTED", message, { file, offset: AT.version });
  }
  if (!sameBytes(headDigest(bytes), bytes.subarray(AT.headDigest, HEAD_BYTES))) {
    const message = "the head is not the one that was written: its digest differs";
    throw new IsologitError("DIGEST_MISMATCH", message, { file, offset: AT.headDigest });
  }
  if (u32(AT.flags) !== 0) {
    const message = `flags 0x${u32(AT.flags).toString(16)} are set; this reader knows none`;
    throw new IsologitError("VERSION_UNSUPPORTED", message, { file, offset: AT.flags });
  }
  const refuse = (offset: number, message: string): never => {
    throw new IsologitError("HEADER_INVALID", message, { file, offset });
  };
  if (u32(AT.headBytes) !== HEAD_BYTES) {
    refuse(AT.headBytes, `a head of ${u32(AT.headBytes)} bytes, expected ${HEAD_BYTES}`);
  }
  if (!ALIGNMENTS.includes(u32(AT.alignment))) {
    refuse(AT.alignment, `alignment ${u32(AT.alignment)}, expected ${ALIGNMENTS.join(" or ")}`);
  }

  const index = { offset: u64(AT.index), size: u64(AT.index + 8) };
  const seals = { offset: u64(AT.seals), size: u64(AT.seals + 8) };
  const [frontEnd, dataEnd] = [u64(AT.frontEnd), u64(AT.dataEnd)];
  atMost(MAX_INDEX_BYTES, index.size, "an index", AT.index + 8, file);
  atMost(MAX_SEAL_BYTES, seals.size, "seals", AT.seals + 8, file);
  if (index.offset !== HEAD_BYTES) {
    refuse(AT.index, `the index is said to be at ${index.offset}, expected ${HEAD_BYTES}`);
  }
  if (seals.offset !== index.offset + index.size) {
    refuse(AT.seals, `the seals are said to be at ${seals.offset}, not after the index`);
  }
  const sealEnd = seals.offset + seals.size;
  if (frontEnd < sealEnd) refuse(AT.frontEnd, `the front ends at ${frontEnd}, inside the seals`);
  atMost(MAX_CONFIG_BYTES, frontEnd - sealEnd, "a config.json", AT.frontEnd, file);
  if (dataEnd < frontEnd) refuse(AT.dataEnd, `the data ends at ${dataEnd}, before the front does`);
  if (fileSize < dataEnd) {
    const message = `the file has ${fileSize} bytes, its head promises ${dataEnd}`;
    throw new IsologitError("TRUNCATED", message, { file, offset: fileSize });
  }
  const indexDigest = bytes.slice(AT.indexDigest, AT.headDigest);
  return { alignment: u32(AT.alignment), index, indexDigest, seals, frontEnd, dataEnd };
}

function atMost(limit: number, bytes: number, what: string, offset: number, file: string): void {
  if (bytes <= limit) return;
  const message = `${what} of ${bytes} bytes, expected at most ${limit}`;
  throw new IsologitError("LIMIT_EXCEEDED", message, { file, offset });
}
