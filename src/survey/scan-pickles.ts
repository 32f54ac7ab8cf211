/** Pickles wherever they lie in a file, and what a plain unpickler would have executed of them. Nothing is executed. */
import { inflateRawSync } from "node:zlib";
import { type GlobalUse, MAX_PICKLE_BYTES, readPickle } from "../../formats/codec/pickle.ts";
import { sliceOf } from "../../formats/codec/slice.ts";
import { locateRaw, surveyDirectory, type ZipEntry } from "../../formats/codec/torch-zip-directory.ts";
import type { Finding } from "../api.ts";
import { IsologitError } from "../core/errors.ts";
import { type ByteSource, readRange } from "../core/io.ts";
import { verdictOn } from "./scan-names.ts";

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
    const { entries, fault } = await surveyDirectory(archive, file);
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
  if (/\.py$/.test(entry.name)) {
    report.add({
      rule: "archive-code",
      severity: "warning",
      at,
      message: `the archive holds code, ${entry.name}`,
    });
  }
  if (!/\.pkl$/.test(entry.name)) return;
  try {
    scanPickles(await bytesOf(archive, entry, file), base + entry.offset, report, "one");
  } catch (error) {
    report.damaged(error);
  }
}

/** As other software reads them: it inflates what torch itself never deflates. */
async function bytesOf(archive: ByteSource, entry: ZipEntry, file: string): Promise<Uint8Array> {
  const at = { file, offset: entry.offset };
  if (entry.size > MAX_PICKLE_BYTES) {
    throw new IsologitError(
      "LIMIT_EXCEEDED",
      `${entry.name} has ${entry.size} bytes; at most ${MAX_PICKLE_BYTES} are read`,
      at,
    );
  }
  const span = await locateRaw(archive, entry, file);
  const bytes = await readRange(archive, span.offset, span.size);
  if (entry.method !== 8) return bytes;
  try {
    return inflateRawSync(bytes, { maxOutputLength: MAX_PICKLE_BYTES });
  } catch (cause) {
    throw new IsologitError("ARCHIVE_INVALID", `entry ${entry.name} does not inflate`, at, { cause });
  }
}

/** Pickles one after the other, from the start of a file: torch's old format has five, then weights. */
export async function scanBare(source: ByteSource, report: Report): Promise<void> {
  scanPickles(await readRange(source, 0, Math.min(source.size, MAX_BARE_BYTES)), 0, report, "many");
}

function scanPickles(bytes: Uint8Array, base: number, report: Report, count: "one" | "many"): void {
  const uses = new Map<string, { use: GlobalUse; times: number }>();
  const onGlobal = (use: GlobalUse) => {
    if (use.listed) return;
    const known = uses.get(use.name);
    // where it is first called, else where it is first named
    uses.set(use.name, {
      use: known?.use.called === false && use.called ? use : (known?.use ?? use),
      times: (known?.times ?? 0) + 1,
    });
  };
  let fault: unknown = null;
  for (let at = 0; ; ) {
    const before = uses.size;
    try {
      at += readPickle(bytes.subarray(at), { file: report.file, base: base + at, onGlobal }).end;
    } catch (error) {
      // What follows the first may be weights: then no name was found in them either.
      if (at === 0 || uses.size > before) fault = error;
      break;
    }
    if (count === "one" || bytes[at] !== 0x80) break;
  }
  for (const { use } of uses.values()) {
    const { rule, severity, what } = verdictOn(use.name, use.called);
    report.add({
      rule,
      severity,
      at: { file: report.file, tensor: null, offset: use.offset },
      message: `a plain unpickler ${what}`,
    });
  }
  if (fault !== null) report.damaged(fault);
}
