/**
 * The journal of a staging folder: one line for the plan, then one line for each finished tensor. Each line contains a
 * digest of itself, so that a damaged line is recognised.
 */
import { type FileHandle, open } from "node:fs/promises";
import { z } from "zod";
import { IsologitError } from "../core/errors.ts";
import { canonicalJson, sha256 } from "../core/hash.ts";
import { pathExists } from "./stamps.ts";

const digest = z.string().regex(/^[0-9a-f]{64}$/);
const Head = z.strictObject({ plan: z.string() });
const Entry = z.strictObject({
  name: z.string(),
  sha256: digest,
  crc32: z.array(z.int()).readonly(),
  source: z
    .strictObject({
      sha256: digest.exactOptional(),
      amax: z.number().exactOptional(),
      scale: z.number().exactOptional(),
    })
    .exactOptional(),
});
const Line = Entry.extend({ line: digest });

/** No plan has so many tensors and checksums that its journal is larger. */
const MAX_BYTES = 256 * 1024 * 1024;

/** One finished tensor, with the digests by which a resumed run checks it. */
export type JournalEntry = z.infer<typeof Entry>;

export class Journal implements AsyncDisposable {
  /** by name */
  readonly entries: ReadonlyMap<string, JournalEntry>;
  readonly #file: FileHandle;
  readonly #planId: string;

  private constructor(file: FileHandle, planId: string, entries: ReadonlyMap<string, JournalEntry>) {
    this.#file = file;
    this.#planId = planId;
    this.entries = entries;
  }

  /** @throws PLAN_CHANGED if the journal belongs to another plan */
  static async open(path: string, planId: string): Promise<Journal> {
    const { entries, size } = await readEntries(path, planId);
    const file = await open(path, "a");
    try {
      await file.truncate(size); // a line that a crash cut short would join with the next line
      if (size === 0) await file.appendFile(`${JSON.stringify({ plan: planId })}\n`);
    } catch (error) {
      await file.close();
      throw error;
    }
    return new Journal(file, planId, entries);
  }

  async append(entries: readonly JournalEntry[]): Promise<void> {
    if (entries.length === 0) return;
    const lines = entries.map((entry) => ({ ...entry, line: digestOf(entry, this.#planId) }));
    await this.#file.appendFile(lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
  }

  async sync(): Promise<void> {
    await this.#file.sync();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }
}

function digestOf(entry: JournalEntry, planId: string): string {
  return sha256(canonicalJson({ plan: planId, entry }));
}

/**
 * Entries of the journal, and the size of their lines in bytes. Reading stops at the first damaged line: a crash cuts the
 * last line short, or leaves zeros in its place.
 */
export async function readEntries(
  path: string,
  planId: string,
): Promise<{ entries: ReadonlyMap<string, JournalEntry>; size: number }> {
  const entries = new Map<string, JournalEntry>();
  const text = (await pathExists(path)) ? await readStart(path) : "";
  const [first = "", ...rest] = text.split("\n").slice(0, -1); // the text after the last line break
  const head = parse(Head, first);
  if (head === undefined) return { entries, size: 0 };
  if (head.plan !== planId) {
    throw new IsologitError("PLAN_CHANGED", "the staged files belong to another plan", { file: path });
  }
  let size = Buffer.byteLength(first) + 1;
  for (const text of rest) {
    const parsed = parse(Line, text);
    if (parsed === undefined) break;
    const { line, ...entry } = parsed;
    if (line !== digestOf(entry, planId)) break;
    entries.set(entry.name, entry);
    size += Buffer.byteLength(text) + 1;
  }
  return { entries, size };
}

/** The journal up to MAX_BYTES: a run writes no more. */
async function readStart(path: string): Promise<string> {
  const file = await open(path, "r");
  try {
    const bytes = Buffer.alloc(Math.min((await file.stat()).size, MAX_BYTES));
    let filled = 0;
    for (let read = 1; read > 0 && filled < bytes.byteLength; filled += read) {
      read = (await file.read(bytes, filled, bytes.byteLength - filled, filled)).bytesRead;
    }
    return bytes.toString("utf8", 0, filled);
  } finally {
    await file.close();
  }
}

function parse<T>(schema: z.ZodType<T>, line: string): T | undefined {
  try {
    return schema.safeParse(JSON.parse(line)).data;
  } catch {
    return undefined; // not JSON
  }
}
