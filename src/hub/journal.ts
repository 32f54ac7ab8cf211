/** What an upload has done so far, so that a broken one goes on: kept in HF_HOME, gone when the upload is whole. */
import { createHash } from "node:crypto";
import { appendFile, mkdir, readFile, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { systemError } from "../core/errors.ts";

/** A local file as it was when it was sent, and the digest that the Hub gave it. */
const Sent = z.object({ path: z.string(), size: z.number(), mtimeMs: z.number(), etag: z.string() });
/** The pull request that was opened: later commits go there. */
const Opened = z.object({ branch: z.string(), pullRequest: z.string() });
const Line = z.union([Sent, Opened]);

export type SentFile = z.infer<typeof Sent>;
export type OpenedRequest = z.infer<typeof Opened>;

export interface Journal {
  readonly path: string;
  readonly sent: ReadonlyMap<string, SentFile>;
  readonly opened: OpenedRequest | undefined;
}

/** @param what tells this upload from others: where from, where to, and how */
export function journalPath(home: string, what: readonly string[]): string {
  const name = createHash("sha256").update(JSON.stringify(what)).digest("hex").slice(0, 32);
  return join(home, "isologit", "uploads", `${name}.ndjson`);
}

/** A line that is not whole was being written when the process died: it ends there. */
export async function readJournal(path: string): Promise<Journal> {
  const text = await readFile(path, "utf8").catch((error) => {
    if (error.code === "ENOENT") return "";
    throw systemError(error, { file: path });
  });
  const sent = new Map<string, SentFile>();
  let opened: OpenedRequest | undefined;
  for (const line of text.match(/[^\n]*\n/g) ?? []) {
    const entry = parsed(line);
    if (entry === undefined) break;
    if ("branch" in entry) opened = entry;
    else sent.set(entry.path, entry);
  }
  return { path, sent, opened };
}

function parsed(text: string): z.infer<typeof Line> | undefined {
  try {
    return Line.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

export async function note(path: string, lines: readonly (SentFile | OpenedRequest)[]): Promise<void> {
  try {
    await mkdir(dirname(path), { recursive: true });
    await appendFile(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
  } catch (error) {
    throw systemError(error, { file: path });
  }
}

export const forget = (path: string): Promise<void> => rm(path, { force: true });
