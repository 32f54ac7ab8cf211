/**
 * The journal of a staged folder: a line for the plan, then one for each finished tensor. Each line carries a digest
 * of itself, so that a damaged one is not believed.
 */
import { type FileHandle, open } from "node:fs/promises";
import { z } from "zod";
import { IsologitError } from "../core/errors.ts";
import { canonicalJson, sha256 } from "../core/hash.ts";
import { exists } from "./stamps.ts";

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

/** No plan has as many tensors, nor as many checksums. */
const MAX_BYTES = 256 * 1024 * 1024;

/** One finished tensor: enough to skip it next time. */
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

  /** @throws PLAN_CHANGED when it is another plan's */
  static async open(path: string, planId: string): Promise<Journal> {
    const { entries, size } = await readEntries(path, planId);
    const file = await open(path, "a");
    try {
      await file.truncate(size); // a line that a crash cut short would spoil the next one
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
 * What the journal names, and the bytes it takes to say so. It ends at the first line that is not as it was written:
 * a crash cuts the last one short, or leaves zeros for it.
 */
async function readEntries(
  path: string,
  planId: string,
): Promise<{ entries: ReadonlyMap<string, JournalEntry>; size: number }> {
  const entries = new Map<string, JournalEntry>();
  const text = (await exists(path)) ? await readStart(path) : "";
  const [first = "", ...rest] = text.split("\n").slice(0, -1); // the last one has no end
  const head = parse(Head, first);
  if (head === undefined) return { entries, size: 0 };
  if (head.plan !== planId) {
    throw new IsologitError("PLAN_CHANGED", "the staged files belong to another plan", { file: path });
  }
  let size = Buffer.byteLength(first) + 1;
  for (const each of rest) {
    const parsed = parse(Line, each);
    if (parsed === undefined) break;
    const { line, ...entry } = parsed;
    if (line !== digestOf(entry, planId)) break;
    entries.set(entry.name, entry);
    size += Buffer.byteLength(each) + 1;
  }
  return { entries, size };
}

/** All of a journal that a run wrote. What lies beyond is not believed. */
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
    return undefined; // no JSON
  }
}
