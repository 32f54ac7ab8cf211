/**
 * The directory of a zip whose entries are all stored without compression, as torch writes it. Sizes are not in the local
 * headers but in the central directory at the end, in 32 bits or, in an extra field, in 64 bits.
 *
 * A zip in which two readers could see different entries is refused: repeated names, bytes in front or behind, records that
 * disagree. (APPNOTE.TXT 6.3.10 describes the records; numbers are little-endian.)
 */
import { crc32 } from "node:zlib";
import type { Span } from "../../../src/core/checkpoint.ts";
import { type ErrorLocation, IsologitError } from "../../../src/core/errors.ts";
import { type ByteSource, readRange } from "../../../src/core/io.ts";
import { safePath } from "../../../src/core/safe-path.ts";

export interface ZipEntry {
  readonly name: string;
  /** 0: stored; 8: deflated */
  readonly method: number;
  readonly encrypted: boolean;
  readonly crc32: number;
  /** stored size, bytes */
  readonly size: number;
  /** inflated size, bytes */
  readonly fullSize: number;
  /** offset of the local header from the start of the archive */
  readonly offset: number;
  /** where the next entry, or the directory, starts: the entry must end before */
  readonly limit: number;
}

/** Where the central directory lies. */
interface Directory {
  readonly offset: number;
  readonly size: number;
  readonly count: number;
}

const END_BYTES = 22;
const LOCATOR_BYTES = 20;
const END64_BYTES = 56;
const CENTRAL_BYTES = 46;
const LOCAL_BYTES = 30;
/** A training checkpoint has some ten thousand entries of 80 bytes. */
const MAX_DIRECTORY_BYTES = 64 * 1024 * 1024;
/** torch pads by up to 64 bytes, in an extra field of local headers. */
const MAX_EXTRA_BYTES = 128;
/** An entry as short as this is read with its header, and its checksum compared; larger ones are weights. */
const CHECKED_BYTES = 4096;

/**
 * Entries in the order of their bytes.
 *
 * @throws TRUNCATED, ARCHIVE_INVALID, LIMIT_EXCEEDED, SIZE_UNSAFE, PATH_UNSAFE, DUPLICATE_NAME
 */
export async function readDirectory(source: ByteSource, file: string): Promise<ZipEntry[]> {
  const directory = await findDirectory(source, file);
  return checkEntries(await parseDirectory(source, directory, file), directory.offset, file);
}

/**
 * Entries whatever they may be, for who only looks at them, and the first fault that `readDirectory` would find.
 *
 * @throws as `readDirectory`, where there is no directory to be read
 */
export async function listEntries(
  source: ByteSource,
  file: string,
): Promise<{ entries: readonly ZipEntry[]; fault: unknown }> {
  const directory = await findDirectory(source, file);
  const entries = await parseDirectory(source, directory, file);
  const loose = entries.map((entry) => ({ ...entry, limit: directory.offset }));
  try {
    return { entries: checkEntries(entries, directory.offset, file), fault: null };
  } catch (fault) {
    return { entries: loose, fault };
  }
}

/** A directory as its records say, what they say unchecked. */
async function parseDirectory(
  source: ByteSource,
  { offset, size, count }: Directory,
  file: string,
): Promise<Omit<ZipEntry, "limit">[]> {
  const bytes = await readRange(source, offset, size);
  const view = new DataView(bytes.buffer);
  const entries: Omit<ZipEntry, "limit">[] = [];
  let at = 0;
  while (at < size) {
    const place = { file, offset: offset + at };
    if (at + CENTRAL_BYTES > size || view.getUint32(at, true) !== 0x02014b50) {
      throw invalid("the central directory has a damaged entry", place);
    }
    const end = at + CENTRAL_BYTES + view.getUint16(at + 28, true);
    const extraEnd = end + view.getUint16(at + 30, true);
    const next = extraEnd + view.getUint16(at + 32, true);
    if (next > size) throw invalid("the last entry of the central directory is cut short", place);
    const name = nameOf(bytes.subarray(at + CENTRAL_BYTES, end), place);
    entries.push(entryOf(name, view, at, bytes.subarray(end, extraEnd), place));
    at = next;
  }
  if (entries.length !== count) {
    throw invalid(`the central directory holds ${entries.length} entries, its end says ${count}`, {
      file,
      offset,
    });
  }
  return entries;
}

/** Finds the central directory: it ends where the end records start, and these end the archive. */
async function findDirectory(source: ByteSource, file: string): Promise<Directory> {
  const endAt = source.size - END_BYTES;
  if (endAt < 0) {
    throw new IsologitError("TRUNCATED", `a file of ${source.size} bytes is too short for a zip archive`, {
      file,
      offset: source.size,
    });
  }
  const end = viewOf(await readRange(source, endAt, END_BYTES));
  if (end.getUint32(0, true) !== 0x06054b50) {
    throw new IsologitError("TRUNCATED", "the end record of the zip archive is missing", {
      file,
      offset: endAt,
    });
  }
  const short = {
    count: end.getUint16(10, true),
    size: end.getUint32(12, true),
    offset: end.getUint32(16, true),
  };
  const at = { file, offset: endAt };
  const long = await findLong(source, endAt, file);
  const { startOfEnd, ...found } = long ?? { ...short, startOfEnd: endAt };
  const agree =
    (short.count === found.count || short.count === 0xffff) &&
    (short.size === found.size || short.size === 0xffffffff) &&
    (short.offset === found.offset || short.offset === 0xffffffff);
  if (!agree) throw invalid("the two end records of the zip archive disagree", at);
  if (found.offset + found.size !== startOfEnd) {
    const message = `the central directory is said to be ${found.size} bytes at byte ${found.offset}; its end record is at byte ${startOfEnd}`;
    throw invalid(message, at);
  }
  if (found.size > MAX_DIRECTORY_BYTES) {
    const message = `a central directory of ${found.size} bytes; at most ${MAX_DIRECTORY_BYTES} are read`;
    throw new IsologitError("LIMIT_EXCEEDED", message, at);
  }
  return found;
}

/** The end record of zip64; null if there is none. */
async function findLong(source: ByteSource, endAt: number, file: string) {
  const locatorAt = endAt - LOCATOR_BYTES;
  if (locatorAt < END64_BYTES) return null;
  const locator = viewOf(await readRange(source, locatorAt, LOCATOR_BYTES));
  if (locator.getUint32(0, true) !== 0x07064b50) return null;
  const at = { file, offset: locatorAt };
  const startOfEnd = sizeOf(locator.getBigUint64(8, true), at);
  if (startOfEnd !== locatorAt - END64_BYTES)
    throw invalid("the zip64 end record is not where its locator says", at);
  const end = viewOf(await readRange(source, startOfEnd, END64_BYTES));
  if (end.getUint32(0, true) !== 0x06064b50) throw invalid("the zip64 end record is damaged", at);
  return {
    startOfEnd,
    count: sizeOf(end.getBigUint64(32, true), at),
    size: sizeOf(end.getBigUint64(40, true), at),
    offset: sizeOf(end.getBigUint64(48, true), at),
  };
}

function nameOf(bytes: Uint8Array, at: ErrorLocation): string {
  try {
    return safePath(new TextDecoder("utf-8", { fatal: true }).decode(bytes), at);
  } catch (cause) {
    if (cause instanceof IsologitError) throw cause;
    throw new IsologitError("NAME_INVALID", "an entry's name is not UTF-8", at, { cause });
  }
}

function entryOf(
  name: string,
  view: DataView,
  at: number,
  extra: Uint8Array,
  place: ErrorLocation,
): Omit<ZipEntry, "limit"> {
  const wide = wideFields(extra, place);
  /** A field of 32 bits, or, if it is all ones, the next field of 64 bits. */
  const field = (offset: number): number => {
    const value = view.getUint32(at + offset, true);
    if (value !== 0xffffffff) return value;
    const next = wide.shift();
    if (next === undefined) throw invalid("a size of 64 bits is missing", { ...place, tensor: name });
    return sizeOf(next, place);
  };
  const fullSize = field(24);
  const size = field(20);
  const offset = field(42);
  return {
    name,
    method: view.getUint16(at + 10, true),
    encrypted: (view.getUint16(at + 8, true) & 1) !== 0,
    crc32: view.getUint32(at + 16, true),
    size,
    fullSize,
    offset,
  };
}

/** The numbers in the zip64 extra field: the fields that do not fit into 32 bits, in a fixed order. */
function wideFields(extra: Uint8Array, at: ErrorLocation): bigint[] {
  const view = viewOf(extra);
  const wide: bigint[] = [];
  for (let i = 0; i + 4 <= extra.byteLength; ) {
    const end = i + 4 + view.getUint16(i + 2, true);
    if (end > extra.byteLength) throw invalid("an extra field is cut short", at);
    if (view.getUint16(i, true) === 1) {
      for (let k = i + 4; k + 8 <= end; k += 8) wide.push(view.getBigUint64(k, true));
    }
    i = end;
  }
  return wide;
}

/** Checks that no name repeats, no entry overlaps another, and all are before the directory. */
function checkEntries(
  entries: readonly Omit<ZipEntry, "limit">[],
  directoryAt: number,
  file: string,
): ZipEntry[] {
  const names = new Set<string>();
  for (const { name, offset } of entries) {
    // torch's reader ignores the case of names
    if (names.has(name.toLowerCase())) {
      throw new IsologitError("DUPLICATE_NAME", `two entries of the archive are named ${name}`, {
        file,
        offset,
      });
    }
    names.add(name.toLowerCase());
  }
  const sorted = entries.toSorted((a, b) => a.offset - b.offset);
  return sorted.map((entry, i) => {
    const limit = sorted[i + 1]?.offset ?? directoryAt;
    const least = entry.offset + LOCAL_BYTES + entry.size;
    if (least <= limit) return { ...entry, limit };
    const message = `entry ${entry.name} of ${entry.size} bytes reaches past byte ${limit}, where the next begins`;
    throw invalid(message, { file, offset: entry.offset });
  });
}

/**
 * The place of the bytes of a stored entry.
 *
 * @throws UNSUPPORTED for an encrypted or compressed entry; errors of `locateRaw`
 */
export async function locateEntry(source: ByteSource, entry: ZipEntry, file: string): Promise<Span> {
  if (!entry.encrypted && entry.method === 0) return await locateRaw(source, entry, file);
  const how = entry.encrypted ? "encrypted" : "compressed";
  const message = `entry ${entry.name} is ${how}; torch.save stores entries without it`;
  throw new IsologitError(
    "UNSUPPORTED",
    message,
    { file, offset: entry.offset },
    { next: "load the file with torch and save it again" },
  );
}

/**
 * The place of the bytes of an entry, stored or compressed: after its local header, which must agree with the directory. The
 * checksum of a short stored entry is compared too; torch compares none.
 *
 * @throws ARCHIVE_INVALID, DIGEST_MISMATCH
 */
export async function locateRaw(source: ByteSource, entry: ZipEntry, file: string): Promise<Span> {
  const { name, offset, limit, size } = entry;
  const at = { file, offset };
  if (offset + LOCAL_BYTES + size > limit) throw invalid(`entry ${name} reaches past byte ${limit}`, at);
  const header = LOCAL_BYTES + Buffer.byteLength(name);
  const wanted = size <= CHECKED_BYTES ? header + MAX_EXTRA_BYTES + size : header;
  const bytes = await readRange(source, offset, Math.min(limit - offset, wanted));
  const view = viewOf(bytes);
  const from = LOCAL_BYTES + view.getUint16(26, true) + view.getUint16(28, true);
  const local = Buffer.from(bytes).toString("utf8", LOCAL_BYTES, LOCAL_BYTES + view.getUint16(26, true));
  const agree =
    view.getUint32(0, true) === 0x04034b50 && view.getUint16(8, true) === entry.method && local === name;
  if (!agree) throw invalid(`the header of entry ${name} does not agree with the directory`, at);
  if (offset + from + size > limit) throw invalid(`entry ${name} reaches into the next`, at);
  if (entry.method === 0 && from + size <= bytes.byteLength)
    checkSum(entry, bytes.subarray(from, from + size), at);
  return { file, offset: offset + from, size };
}

/** All bytes of a stored entry, with its checksum compared. @throws errors of `locateEntry`; LIMIT_EXCEEDED */
export async function readEntry(
  source: ByteSource,
  entry: ZipEntry,
  file: string,
  maxBytes: number,
): Promise<{ span: Span; bytes: Uint8Array }> {
  const { name, offset, size } = entry;
  const at = { file, offset };
  if (size > maxBytes) {
    throw new IsologitError("LIMIT_EXCEEDED", `${name} has ${size} bytes; at most ${maxBytes} are read`, at);
  }
  const span = await locateEntry(source, entry, file);
  const bytes = await readRange(source, span.offset, size);
  checkSum(entry, bytes, at);
  return { span, bytes };
}

/** Compares a checksum. torch can be configured to write no checksums; then the field is 0. */
function checkSum(entry: ZipEntry, bytes: Uint8Array, at: ErrorLocation): void {
  if (entry.crc32 === 0 || crc32(bytes) === entry.crc32) return;
  throw new IsologitError("DIGEST_MISMATCH", `the bytes of entry ${entry.name} do not have its CRC-32`, at);
}

const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function sizeOf(value: bigint, at: ErrorLocation): number {
  if (value <= Number.MAX_SAFE_INTEGER) return Number(value);
  throw new IsologitError("SIZE_UNSAFE", `${value} bytes is not a safe size`, at);
}

function invalid(message: string, at: ErrorLocation): IsologitError {
  return new IsologitError("ARCHIVE_INVALID", message, at);
}
