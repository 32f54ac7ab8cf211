/**
 * Journal of an upload, so that an interrupted one can continue: a file in HF_HOME, removed when the upload is
 * complete.
 */
import { createHash } from "node:crypto";
import { appendFile, readFile, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { systemError } from "../../core/errors.ts";
import { makeFolders } from "../../io/folders.ts";

/** A local file at the time it was sent, and its digest on the Hub. */
const SentSchema = z.object({ path: z.string(), size: z.number(), mtimeMs: z.number(), etag: z.string() });
/** The pull request that receives the later commits. */
const OpenedSchema = z.object({ branch: z.string(), pullRequest: z.string() });
const LineSchema = z.union([SentSchema, OpenedSchema]);

export type SentFile = z.infer<typeof SentSchema>;
export type OpenedRequest = z.infer<typeof OpenedSchema>;

interface UploadJournal {
  readonly path: string;
  readonly sent: ReadonlyMap<string, SentFile>;
  readonly opened: OpenedRequest | undefined;
}

/** @param identity source, target and options, which identify the upload */
export function journalPath(home: string, identity: readonly string[]): string {
  const name = createHash("sha256").update(JSON.stringify(identity)).digest("hex").slice(0, 32);
  return join(home, "isologit", "uploads", `${name}.ndjson`);
}

/** Reads up to the first incomplete line, which was being written when the process ended. */
export async function readJournal(path: string): Promise<UploadJournal> {
  const text = await readFile(path, "utf8").catch((error) => {
    if (error.code === "ENOENT") return "";
    throw systemError(error, { file: path });
  });
  const sent = new Map<string, SentFile>();
  let opened: OpenedRequest | undefined;
  for (const line of text.match(/[^\n]*\n/g) ?? []) {
    const entry = parseLine(line);
    if (entry === undefined) break;
    if ("branch" in entry) opened = entry;
    else sent.set(entry.path, entry);
  }
  return { path, sent, opened };
}

function parseLine(text: string): z.infer<typeof LineSchema> | undefined {
  try {
    return LineSchema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

export async function appendToJournal(
  path: string,
  lines: readonly (SentFile | OpenedRequest)[],
): Promise<void> {
  try {
    await makeFolders(dirname(path));
    await appendFile(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
  } catch (error) {
    throw systemError(error, { file: path });
  }
}

export const removeJournal = (path: string): Promise<void> => rm(path, { force: true });
