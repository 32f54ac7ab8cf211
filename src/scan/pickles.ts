/** Finds the pickles in a file and reports the code that a plain unpickler would execute. Executes nothing. */
import { inflateRawSync } from "node:zlib";
import {
  type GlobalUse,
  MAX_PICKLE_BYTES,
  type Pickle,
  readPickle,
} from "../../formats/codec/pickle/read.ts";
import { isKind, type PickleValue } from "../../formats/codec/pickle/value.ts";
import { memorySource, sliceOf } from "../../formats/codec/slice.ts";
import { listEntries, locateRaw, type ZipEntry } from "../../formats/codec/torch-zip/directory.ts";
import { MAX_STATE_BYTES, stateMeanings } from "../../formats/codec/transformer-engine/extra-state.ts";
import { IsologitError } from "../core/errors.ts";
import type { Finding } from "../core/finding.ts";
import { type ByteSource, readRange } from "../core/io.ts";
import { riskOfGlobal } from "./names.ts";

/** Most bytes that are read of a file of pickles without an archive; in torch's old format weights follow the pickles. */
const MAX_BARE_BYTES = 64 * 1024 * 1024;

export interface Report {
  readonly file: string;
  /** a report for a member of the file */
  of(member: string): Report;
  add(finding: Finding): void;
  /** reports a file, or a part of a file, that cannot be read completely */
  damaged(error: unknown): void;
}

/** Scans archives that follow each other, as in a `.distcp`. It reads from the end, because an end record has the start of its archive. */
export async function scanZips(source: ByteSource, report: Report): Promise<void> {
  for (let end = source.size; end > 0; ) {
    const start = await scanZip(sliceOf(source, 0, end, report.file), report, true);
    if (start === null) return;
    end = start;
  }
}

/**
 * Scans the last archive of the source.
 *
 * @param hasStates its pickles may hold states of modules; a state holds no further ones
 * @returns its first byte; null if the first byte is unknown
 */
async function scanZip(source: ByteSource, report: Report, hasStates: boolean): Promise<number | null> {
  const { file } = report;
  let start: number | null = null;
  try {
    start = await startOfZip(source, file);
    const archive = sliceOf(source, start, source.size - start, file);
    const { entries, fault } = await listEntries(archive, file);
    for (const entry of entries) {
      const pickle = await scanEntry(archive, entry, start, report);
      if (pickle !== null && hasStates) await scanStates(archive, entries, entry, pickle, start, report);
    }
    if (fault !== null) report.damaged(fault);
  } catch (error) {
    report.damaged(error);
  }
  return start;
}

/** First byte of an archive, from the size of its directory and the offset of the directory in the archive. */
async function startOfZip(source: ByteSource, file: string): Promise<number> {
  const at = Math.max(0, source.size - END_BYTES - WIDE_BYTES);
  const tail = Buffer.from(await readRange(source, at, source.size - at));
  const end = tail.byteLength - END_BYTES;
  if (end < 0 || tail.readUInt32LE(end) !== 0x06054b50) return 0; // the reader reports the fault
  const wide =
    end === WIDE_BYTES && tail.readUInt32LE(end - 20) === 0x07064b50 && tail.readUInt32LE(0) === 0x06064b50;
  const size = wide ? Number(tail.readBigUInt64LE(40)) : tail.readUInt32LE(end + 12);
  const offset = wide ? Number(tail.readBigUInt64LE(48)) : tail.readUInt32LE(end + 16);
  const start = at + (wide ? 0 : end) - size - offset;
  if (start >= 0) return start;
  throw new IsologitError("ARCHIVE_INVALID", "the directory of the archive is outside the file", {
    file,
    offset: at,
  });
}
const END_BYTES = 22;
/** the 64-bit end record and its locator */
const WIDE_BYTES = 76;

/** @returns the pickle of the entry; null for other entries, and for a damaged pickle */
async function scanEntry(
  archive: ByteSource,
  entry: ZipEntry,
  base: number,
  report: Report,
): Promise<Pickle | null> {
  const { file } = report;
  const at = { file, tensor: null, offset: base + entry.offset };
  if (/\.py$/i.test(entry.name)) {
    report.add({
      rule: "archive-code",
      severity: "warning",
      at,
      message: `the archive contains code: ${entry.name}`,
    });
  }
  if (!/\.pkl$/i.test(entry.name)) return null; // torch ignores upper and lower case in the names of entries
  try {
    const { bytes, placeOf } = await pickleIn(archive, entry, file);
    return scanPickles(bytes, (index) => base + placeOf(index), report, "one");
  } catch (error) {
    report.damaged(error);
    return null;
  }
}

/** Transformer Engine loads the bytes of an `_extra_state` as a pickle again: those of byte tensors, and of byte streams. */
async function scanStates(
  archive: ByteSource,
  entries: readonly ZipEntry[],
  pickleEntry: ZipEntry,
  { value, storages }: Pickle,
  base: number,
  report: Report,
): Promise<void> {
  const root = pickleEntry.name.slice(0, pickleEntry.name.lastIndexOf("/") + 1);
  const keys = new Set(storages.flatMap(({ dtype, key }) => (dtype === "U8" ? [key] : [])));
  for (const entry of entries) {
    if (!entry.name.startsWith(`${root}data/`) || !keys.has(entry.name.slice(root.length + 5))) continue;
    if (entry.size < 2 || entry.size > MAX_STATE_BYTES || entry.method !== 0) continue;
    const { offset } = await locateRaw(archive, entry, report.file);
    if (!startsPickle(await readRange(archive, offset, 2))) continue;
    const bytes = await readRange(archive, offset, entry.size);
    scanPickles(bytes, (index) => base + offset + index, report, "state");
  }
  for (const bytes of streamsIn(value)) {
    const placeOf = () => base + pickleEntry.offset;
    if (startsPickle(bytes)) scanPickles(bytes, placeOf, report, "state");
    else if (Buffer.from(bytes.subarray(0, 4)).toString("latin1") === "PK\x03\x04")
      await scanZip(memorySource(bytes, report.file), report, false);
  }
}

/** PROTO, and a version that Python writes since 2003. */
const startsPickle = ([first, version = 0]: Uint8Array): boolean =>
  first === 0x80 && version >= 2 && version <= 5;

/** States lie in the dict of a model, or in a list; no real one has more values. */
const MOST_VALUES = 1_000_000;

/** The bytes of all byte streams in lists and dicts. */
function streamsIn(root: PickleValue): readonly Uint8Array[] {
  const streams: Uint8Array[] = [];
  const seen = new Set<PickleValue>();
  const left: PickleValue[] = [root];
  for (let value = left.pop(); value !== undefined && seen.size < MOST_VALUES; value = left.pop()) {
    if (seen.has(value)) continue;
    seen.add(value);
    // not spread: a million arguments exceed the stack
    if (isKind(value, "list") || isKind(value, "tuple")) for (const item of value.items) left.push(item);
    else if (isKind(value, "dict")) for (const [, held] of value.entries) left.push(held);
    else if (isKind(value, "record") && value.name === "_io.BytesIO") {
      const [bytes] = isKind(value.state, "tuple") ? value.state.items : value.args;
      if (bytes instanceof Uint8Array) streams.push(bytes);
    }
  }
  return streams;
}

/** Reads an entry, also a compressed one, which other software reads and torch does not write. Its bytes have the offset of the entry. */
async function pickleIn(archive: ByteSource, entry: ZipEntry, file: string) {
  const at = { file, offset: entry.offset };
  if (entry.size > MAX_PICKLE_BYTES) {
    const message = `${entry.name} has ${entry.size} bytes; at most ${MAX_PICKLE_BYTES} are read`;
    throw new IsologitError("LIMIT_EXCEEDED", message, at);
  }
  const { offset, size } = await locateRaw(archive, entry, file);
  const bytes = await readRange(archive, offset, size);
  if (entry.method !== 8) return { bytes, placeOf: (index: number) => offset + index };
  try {
    return {
      bytes: inflateRawSync(bytes, { maxOutputLength: MAX_PICKLE_BYTES }),
      placeOf: () => offset,
    };
  } catch (cause) {
    throw new IsologitError("ARCHIVE_INVALID", `entry ${entry.name} does not inflate`, at, { cause });
  }
}

/** Scans pickles that follow each other from the start of a file. */
export async function scanBare(source: ByteSource, report: Report): Promise<void> {
  const bytes = await readRange(source, 0, Math.min(source.size, MAX_BARE_BYTES));
  scanPickles(bytes, (index) => index, report, "many");
}

/** First pickle of torch files before version 1.6; a pickle can encode the number in several ways. */
const LEGACY_MAGIC = 0x1950a86a20f9469cfc6cn;
/** Number of pickles in such a file before the weights. */
const LEGACY_PICKLES = 5;

/**
 * @param placeOf offset in the file of a byte of the pickles
 * @param count   "many": the bytes after the first pickle may be a pickle or other data; "state": they are a state of
 *   Transformer Engine, or no pickle at all
 * @returns the first pickle; null if it is damaged
 */
function scanPickles(
  bytes: Uint8Array,
  placeOf: (index: number) => number,
  report: Report,
  count: "one" | "many" | "state",
): Pickle | null {
  let first: Pickle | null = null;
  const uses = new Map<string, GlobalUse>();
  const onGlobal = (use: GlobalUse) => {
    const known = uses.get(use.name);
    // offset of the first call, else of the first use of the name
    if (count === "state" && !NAME.test(use.name)) return; // bytes that are no pickle
    if (!use.listed && (known === undefined || (use.called && !known.called))) uses.set(use.name, use);
  };
  let fault: unknown = null;
  /** number of pickles that a loader reads, so that they must exist */
  let due = 1;
  for (let i = 0, at = 0; i < due || (count === "many" && due === 1 && at < bytes.byteLength); i++) {
    const before = uses.size;
    try {
      const moreMeanings = count === "state" ? { moreMeanings: stateMeanings(onGlobal) } : {};
      const pickle = readPickle(bytes.subarray(at), {
        ...{ file: report.file, base: at, onGlobal },
        ...moreMeanings,
      });
      first ??= pickle;
      const { value, end } = pickle;
      if (count === "many" && i === 0 && value === LEGACY_MAGIC) due = LEGACY_PICKLES;
      at += end;
    } catch (error) {
      if (i < due || uses.size > before) fault = placed(error, placeOf);
      break;
    }
  }
  for (const { name, called, offset } of uses.values()) {
    const { rule, severity, what } = riskOfGlobal(name, called);
    const at = { file: report.file, tensor: null, offset: placeOf(offset) };
    const who = count === "state" ? "a plain unpickler of a module's state" : "a plain unpickler";
    report.add({ rule, severity, at, message: `${who} ${what}` });
  }
  if (fault !== null && (count !== "state" || uses.size > 0)) report.damaged(fault);
  return first;
}

/** A dotted name of Python. */
const NAME = /^[A-Za-z_]\w*(\.\w+)+$/;

function placed(error: unknown, placeOf: (index: number) => number): unknown {
  if (!(error instanceof IsologitError) || error.at.offset === undefined) return error;
  const { code, message, at, cause, next } = error;
  return new IsologitError(code, message, { ...at, offset: placeOf(error.at.offset) }, { cause, next });
}
