/**
 * A `torch.save` archive to write: all entries stored, the pickle first, then storages, each at a multiple of 64 bytes.
 * Checksums of storages follow their bytes (data descriptors, like torch's writer), so that all bytes before a storage are
 * known before its own bytes. (Records: APPNOTE.TXT 6.3.10.)
 */
import { crc32 } from "node:zlib";

/** Alignment of storages from the first byte of the archive, so that readers can map them into memory. */
const ALIGNMENT = 64;
/** Sizes and offsets from here on are written in 64 bits. */
const WIDE = 0xffffffff;
/** sizes and checksum follow the bytes; names are UTF-8 */
const FLAGS = 0x0808;
/** 1980-01-01, the first day that a zip can express: files do not depend on the time of writing */
const DATE = 0x0021;

interface ArchiveContents {
  /** the folder inside: `archive` in a .distcp file, else the name of the file without its ending */
  readonly root: string;
  readonly pickle: Uint8Array;
  /** size of storage "0", "1", …, bytes */
  readonly storages: readonly number[];
}

export interface Archive {
  readonly size: number;
  /** where each storage starts */
  readonly storages: readonly number[];
  /**
   * All other bytes: gap 0 before the first storage, gap i before storage i, the last gap up to the end. Gap 0 never depends
   * on checksums; each later gap contains the checksum of the storage before it, and the last gap contains all.
   */
  readonly gaps: readonly { readonly offset: number; readonly bytes: Uint8Array }[];
}

interface Entry {
  readonly name: string;
  readonly size: number;
  readonly crc: number;
  readonly offset: number;
}

/** @param crcs  checksum of each storage; if absent, all bytes that depend on them are zero */
export function archiveOf({ root, pickle, storages }: ArchiveContents, crcs?: readonly number[]): Archive {
  const entries: Entry[] = [];
  const gaps: { offset: number; bytes: Uint8Array }[] = [];
  const starts: number[] = [];
  let parts: Uint8Array[] = [];
  let gapAt = 0;
  let at = 0;
  const put = (bytes: Uint8Array) => {
    parts.push(bytes);
    at += bytes.byteLength;
  };
  const endGap = () => gaps.push({ offset: gapAt, bytes: Buffer.concat(parts) });
  const start = (path: string, size: number, crc: number, alignment: number) => {
    const entry = { name: `${root}/${path}`, size, crc, offset: at };
    entries.push(entry);
    put(localHeader(entry, alignment));
    return entry;
  };
  const putFile = (path: string, bytes: Uint8Array) => {
    const entry = start(path, bytes.byteLength, crc32(bytes), 1);
    put(bytes);
    put(descriptor(entry));
  };

  putFile("data.pkl", pickle);
  putFile("byteorder", Buffer.from("little"));
  storages.forEach((size, i) => {
    const entry = start(`data/${i}`, size, crcs?.[i] ?? 0, ALIGNMENT);
    endGap();
    parts = [];
    starts.push(at);
    at += size;
    gapAt = at;
    put(descriptor(entry));
  });
  putFile("version", Buffer.from("3\n"));
  put(directory(entries, at));
  endGap();
  return { size: at, storages: starts, gaps };
}

function localHeader({ name, size, offset }: Entry, alignment: number): Uint8Array {
  const wide = size >= WIDE ? extraField(1, [size, size]) : Buffer.alloc(0);
  const unpadded = offset + 30 + name.length + wide.byteLength;
  const padding = alignment === 1 ? Buffer.alloc(0) : paddingField(unpadded, alignment);
  const bytes = Buffer.alloc(30);
  bytes.writeUInt32LE(0x04034b50, 0);
  bytes.writeUInt16LE(versionFor(size), 4);
  bytes.writeUInt16LE(FLAGS, 6);
  bytes.writeUInt16LE(DATE, 12);
  if (size >= WIDE) bytes.fill(0xff, 18, 26); // the extra field has the sizes, and those of the descriptor have 64 bits
  bytes.writeUInt16LE(name.length, 26);
  bytes.writeUInt16LE(wide.byteLength + padding.byteLength, 28);
  return Buffer.concat([bytes, Buffer.from(name), wide, padding]);
}

/** Padding like torch's: a field `FB` of as many `Z` as align the following bytes to `alignment`. */
function paddingField(at: number, alignment: number): Buffer {
  const length = (alignment - ((at + 4) % alignment)) % alignment;
  const field = Buffer.alloc(4 + length, "Z");
  field.write("FB", 0);
  field.writeUInt16LE(length, 2);
  return field;
}

function descriptor({ size, crc }: Entry): Uint8Array {
  const wide = size >= WIDE;
  const bytes = Buffer.alloc(wide ? 24 : 16);
  bytes.writeUInt32LE(0x08074b50, 0);
  bytes.writeUInt32LE(crc, 4);
  for (const i of [0, 1]) {
    if (wide) bytes.writeBigUInt64LE(BigInt(size), 8 + 8 * i);
    else bytes.writeUInt32LE(size, 8 + 4 * i);
  }
  return bytes;
}

/** The central directory and its end record. @param at where the directory starts */
function directory(entries: readonly Entry[], at: number): Uint8Array {
  const records = entries.map(centralRecord);
  const size = records.reduce((sum, { byteLength }) => sum + byteLength, 0);
  const wide = entries.length >= 0xffff || size >= WIDE || at >= WIDE;
  return Buffer.concat([
    ...records,
    ...(wide ? wideEnd(entries.length, size, at) : []),
    shortEnd(entries.length, size, at),
  ]);
}

function centralRecord({ name, size, crc, offset }: Entry): Uint8Array {
  const wide = [...(size >= WIDE ? [size, size] : []), ...(offset >= WIDE ? [offset] : [])];
  const extra = wide.length > 0 ? extraField(1, wide) : Buffer.alloc(0);
  const bytes = Buffer.alloc(46);
  bytes.writeUInt32LE(0x02014b50, 0);
  bytes.writeUInt16LE(versionFor(Math.max(size, offset)), 4);
  bytes.writeUInt16LE(versionFor(Math.max(size, offset)), 6);
  bytes.writeUInt16LE(FLAGS, 8);
  bytes.writeUInt16LE(DATE, 14);
  bytes.writeUInt32LE(crc, 16);
  bytes.writeUInt32LE(Math.min(size, WIDE), 20);
  bytes.writeUInt32LE(Math.min(size, WIDE), 24);
  bytes.writeUInt16LE(name.length, 28);
  bytes.writeUInt16LE(extra.byteLength, 30);
  bytes.writeUInt32LE(Math.min(offset, WIDE), 42);
  return Buffer.concat([bytes, Buffer.from(name), extra]);
}

/** The end record of zip64, and its locator. */
function wideEnd(count: number, size: number, at: number): Uint8Array[] {
  const end = Buffer.alloc(56);
  end.writeUInt32LE(0x06064b50, 0);
  end.writeBigUInt64LE(44n, 4); // bytes that follow this field
  end.writeUInt16LE(45, 12);
  end.writeUInt16LE(45, 14);
  end.writeBigUInt64LE(BigInt(count), 24);
  end.writeBigUInt64LE(BigInt(count), 32);
  end.writeBigUInt64LE(BigInt(size), 40);
  end.writeBigUInt64LE(BigInt(at), 48);
  const locator = Buffer.alloc(20);
  locator.writeUInt32LE(0x07064b50, 0);
  locator.writeBigUInt64LE(BigInt(at + size), 8);
  locator.writeUInt32LE(1, 16);
  return [end, locator];
}

function shortEnd(count: number, size: number, at: number): Uint8Array {
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(Math.min(count, 0xffff), 8);
  end.writeUInt16LE(Math.min(count, 0xffff), 10);
  end.writeUInt32LE(Math.min(size, WIDE), 12);
  end.writeUInt32LE(Math.min(at, WIDE), 16);
  return end;
}

function extraField(id: number, values: readonly number[]): Buffer {
  const field = Buffer.alloc(4 + 8 * values.length);
  field.writeUInt16LE(id, 0);
  field.writeUInt16LE(8 * values.length, 2);
  values.forEach((value, i) => {
    field.writeBigUInt64LE(BigInt(value), 4 + 8 * i);
  });
  return field;
}

/** 2.0, or 4.5 if sizes or offsets take 64 bits. */
function versionFor(largest: number): number {
  return largest >= WIDE ? 45 : 20;
}
