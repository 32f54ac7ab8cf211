/** Pickles wherever they lie in a file, and what a plain unpickler would have executed of them. Nothing is executed. */
import { inflateRawSync } from "node:zlib";
import { type GlobalUse, MAX_PICKLE_BYTES, readPickle } from "../../formats/codec/pickle/read.ts";
import { sliceOf } from "../../formats/codec/slice.ts";
import { listEntries, locateRaw, type ZipEntry } from "../../formats/codec/torch-zip/directory.ts";
import { IsologitError } from "../core/errors.ts";
import type { Finding } from "../core/finding.ts";
import { type ByteSource, readRange } from "../core/io.ts";
import { riskOfGlobal } from "./names.ts";

/** Of a file of bare pickles: torch's old format has weights behind them. */
const MAX_BARE_BYTES = 64 * 1024 * 1024;

export interface Report {
  readonly file: string;
  /** the report of a member of the file */
  of(member: string): Report;
  add(finding: Finding): void;
  /** a file, or a part of one, that cannot be read to its end */
  damaged(error: unknown): void;
}

/** Archives back to back, as in a `.distcp`; most files hold one. Read from the end: each says where it starts. */
export async function scanZips(source: ByteSource, report: Report): Promise<void> {
  for (let end = source.size; end > 0; ) {
    const start = await scanZip(sliceOf(source, 0, end, report.file), report);
    if (start === null) return;
    end = start;
  }
}

/** The archive that ends the source. @returns where it starts; null where that cannot be told */
async function scanZip(source: ByteSource, report: Report): Promise<number | null> {
  const { file } = report;
  let start: number | null = null;
  try {
    start = await startOfZip(source, file);
    const archive = sliceOf(source, start, source.size - start, file);
    const { entries, fault } = await listEntries(archive, file);
    for (const entry of entries) await scanEntry(archive, entry, start, report);
    if (fault !== null) report.damaged(fault);
  } catch (error) {
    report.damaged(error);
  }
  return start;
}

/** An archive's end record says how far before it the directory is, and the directory where it is in the archive. */
async function startOfZip(source: ByteSource, file: string): Promise<number> {
  const at = Math.max(0, source.size - END_BYTES - WIDE_BYTES);
  const tail = Buffer.from(await readRange(source, at, source.size - at));
  const end = tail.byteLength - END_BYTES;
  if (end < 0 || tail.readUInt32LE(end) !== 0x06054b50) return 0; // the reader says what is wrong
  const wide =
    end === WIDE_BYTES && tail.readUInt32LE(end - 20) === 0x07064b50 && tail.readUInt32LE(0) === 0x06064b50;
  const size = wide ? Number(tail.readBigUInt64LE(40)) : tail.readUInt32LE(end + 12);
  const offset = wide ? Number(tail.readBigUInt64LE(48)) : tail.readUInt32LE(end + 16);
  const start = at + (wide ? 0 : end) - size - offset;
  if (start >= 0) return start;
  throw new IsologitError("ARCHIVE_INVALID", "the archive's directory does not lie in the file", {
    file,
    offset: at,
  });
}
const END_BYTES = 22;
/** the end record in 64 bits and its locator */
const WIDE_BYTES = 76;

async function scanEntry(archive: ByteSource, entry: ZipEntry, base: number, report: Report): Promise<void> {
  const { file } = report;
  const at = { file, tensor: null, offset: base + entry.offset };
  if (/\.py$/i.test(entry.name)) {
    report.add({
      rule: "archive-code",
      severity: "warning",
      at,
      message: `the archive holds code, ${entry.name}`,
    });
  }
  if (!/\.pkl$/i.test(entry.name)) return; // torch finds its entries whatever their case
  try {
    const { bytes, placeOf } = await pickleIn(archive, entry, file);
    scanPickles(bytes, (index) => base + placeOf(index), report, "one");
  } catch (error) {
    report.damaged(error);
  }
}

/** As other software reads them: it inflates what torch itself never deflates. An inflated byte has its entry's place. */
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

/** Pickles one after the other, from the start of a file. */
export async function scanBare(source: ByteSource, report: Report): Promise<void> {
  const bytes = await readRange(source, 0, Math.min(source.size, MAX_BARE_BYTES));
  scanPickles(bytes, (index) => index, report, "many");
}

/** What torch began its files with before version 1.6; the pickle may spell the number in many ways. */
const LEGACY_MAGIC = 0x1950a86a20f9469cfc6cn;
/** Such a file has this many pickles, then weights. */
const LEGACY_PICKLES = 5;

/**
 * @param placeOf where in the file a byte of the pickles lies
 * @param count   "many": what lies behind the first may be a pickle or anything else
 */
function scanPickles(
  bytes: Uint8Array,
  placeOf: (index: number) => number,
  report: Report,
  count: "one" | "many",
): void {
  const uses = new Map<string, GlobalUse>();
  const onGlobal = (use: GlobalUse) => {
    const known = uses.get(use.name);
    // where it is first called, else where it is first named
    if (!use.listed && (known === undefined || (use.called && !known.called))) uses.set(use.name, use);
  };
  let fault: unknown = null;
  /** pickles that must be there, for a loader reads them */
  let due = 1;
  for (let i = 0, at = 0; i < due || (count === "many" && due === 1 && at < bytes.byteLength); i++) {
    const before = uses.size;
    try {
      const { value, end } = readPickle(bytes.subarray(at), { file: report.file, base: at, onGlobal });
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
    report.add({ rule, severity, at, message: `a plain unpickler ${what}` });
  }
  if (fault !== null) report.damaged(fault);
}

function placed(error: unknown, placeOf: (index: number) => number): unknown {
  if (!(error instanceof IsologitError) || error.at.offset === undefined) return error;
  const { code, message, at, cause, next } = error;
  return new IsologitError(code, message, { ...at, offset: placeOf(error.at.offset) }, { cause, next });
}
