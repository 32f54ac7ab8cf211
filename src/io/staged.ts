/**
 * The atomic destination. Everything is written into `DST.partial`; the destination itself appears by one rename,
 * when all of it is there, synced and verified. A journal of finished tensors lets an interrupted run continue.
 */
import {
  type FileHandle,
  mkdir,
  open,
  readFile,
  rename,
  rm,
  rmdir,
  stat,
  statfs,
  writeFile,
} from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { z } from "zod";
import { fromSystem, IsologitError } from "../core/errors.ts";
import type { Sink } from "../core/io.ts";

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

/** One finished tensor or side file: enough to skip it next time. */
export type JournalEntry = z.infer<typeof Entry>;

export interface StagingOptions {
  readonly destination: string;
  readonly container: "folder" | "file";
  readonly planId: string;
  /** all that will be written; the disk must have room for it */
  readonly totalBytes: number;
  readonly resume: boolean;
  readonly overwrite: boolean;
  /** written bytes between two points at which data is synced and the journal may name it; default 256 MiB */
  readonly checkpointBytes?: number | undefined;
}

const CHECKPOINT_BYTES = 256 * 1024 * 1024;

const JOURNAL = "journal.ndjson";
const DATA = "data";
/** the old destination, until the new one has its place */
const REPLACED = "replaced";
/** an empty file: nothing but renames remains to be done */
const VERIFIED = "verified";

type Target = Pick<StagingOptions, "destination" | "container" | "overwrite">;

export const stagingPath = (destination: string): string => `${resolve(destination)}.partial`;

export async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    (error) => {
      if (error.code === "ENOENT" || error.code === "ENOTDIR") return false;
      throw fromSystem(error, { file: path });
    },
  );
}

function contentPath({ destination, container }: Omit<Target, "overwrite">): string {
  const data = join(stagingPath(destination), DATA);
  return container === "folder" ? data : join(data, basename(resolve(destination)));
}

/**
 * Whether an earlier run got as far as the destination; what a crash left beside it after that is taken away. With
 * nothing beside it, a destination that may be overwritten may also be the one to overwrite.
 */
export async function isFinished(target: Target): Promise<boolean> {
  if (!(await exists(target.destination))) return false;
  const folder = stagingPath(target.destination);
  if (!(await exists(folder))) return !target.overwrite;
  if (!(await exists(join(folder, VERIFIED))) || (await exists(contentPath(target)))) return false;
  await rm(folder, { recursive: true });
  return true;
}

export class Staging implements Sink {
  /** `DST.partial` */
  readonly folder: string;
  /** what will be the destination: open this to verify before `finish` */
  readonly content: string;
  /** what an earlier run of the same plan had finished */
  readonly finished: ReadonlyMap<string, JournalEntry>;
  readonly #options: StagingOptions;
  readonly #files = new Map<string, FileHandle>();
  readonly #journal: FileHandle;
  /** the first folder that had to be made on the way to `folder/data` */
  readonly #made: string | undefined;
  #pending: JournalEntry[] = [];
  #sinceCheckpoint = 0;
  #checkpoint: Promise<void> = Promise.resolve();

  private constructor(
    options: StagingOptions,
    journal: FileHandle,
    finished: ReadonlyMap<string, JournalEntry>,
    made: string | undefined,
  ) {
    this.#options = options;
    this.#journal = journal;
    this.#made = made;
    this.finished = finished;
    this.folder = stagingPath(options.destination);
    this.content = contentPath(options);
  }

  /**
   * @throws DESTINATION_EXISTS, STAGING_EXISTS unless told otherwise; PLAN_CHANGED when a staged folder is another
   * plan's; DISK_FULL before anything is written
   */
  static async open(options: StagingOptions): Promise<Staging> {
    const folder = stagingPath(options.destination);
    try {
      if (!options.overwrite && (await exists(options.destination))) {
        throw new IsologitError("DESTINATION_EXISTS", "the destination exists already", {
          file: options.destination,
        });
      }
      if (await exists(folder)) {
        if (options.overwrite && !options.resume) {
          await putBack(options.destination);
          await rm(folder, { recursive: true });
        } else if (!options.resume) {
          throw new IsologitError("STAGING_EXISTS", "an earlier run left its staged files here", {
            file: folder,
          });
        }
      }
      const made = await mkdir(join(folder, DATA), { recursive: true });
      const { finished, size } = await readJournal(join(folder, JOURNAL), options.planId);
      if (finished.size === 0) await refuseFullDisk(folder, options.totalBytes);
      const journal = await open(join(folder, JOURNAL), "a");
      try {
        await journal.truncate(size); // a line that a crash cut short would spoil the next one
        if (size === 0) await journal.appendFile(`${JSON.stringify({ plan: options.planId })}\n`);
      } catch (error) {
        await journal.close();
        throw error;
      }
      return new Staging(options, journal, finished, made);
    } catch (error) {
      throw fromSystem(error, { file: folder });
    }
  }

  #place(path: string): string {
    return path === "" ? this.content : join(this.folder, DATA, path);
  }

  async create(path: string, size: number): Promise<void> {
    const place = this.#place(path);
    try {
      await mkdir(dirname(place), { recursive: true });
      const file = await open(place, "a+").then(async (made) => {
        await made.close();
        return open(place, "r+");
      });
      this.#files.set(path, file);
      await file.truncate(size);
    } catch (error) {
      throw fromSystem(error, { file: place });
    }
  }

  async writeAt(path: string, offset: number, bytes: Uint8Array): Promise<void> {
    const file = this.#files.get(path);
    if (file === undefined) throw new IsologitError("INTERNAL", `${path} was not created`);
    try {
      for (let at = 0; at < bytes.byteLength; ) {
        at += (await file.write(bytes, at, bytes.byteLength - at, offset + at)).bytesWritten;
      }
    } catch (error) {
      throw fromSystem(error, { file: this.#place(path), offset });
    }
    this.#sinceCheckpoint += bytes.byteLength;
  }

  /** Notes a finished tensor. The journal names it once its bytes are synced. */
  note(entry: JournalEntry): void {
    this.#pending.push(entry);
    if (this.#sinceCheckpoint < (this.#options.checkpointBytes ?? CHECKPOINT_BYTES)) return;
    this.#sinceCheckpoint = 0;
    this.#checkpoint = this.#checkpoint.then(() => this.#sync());
    this.#checkpoint.catch(() => {}); // `settle` throws it; till then nobody waits, and Node would end the process
  }

  async #sync(): Promise<void> {
    const entries = this.#pending;
    this.#pending = [];
    for (const [path, file] of this.#files) {
      await file.datasync().catch((error) => {
        throw fromSystem(error, { file: this.#place(path) });
      });
    }
    if (entries.length > 0)
      await this.#journal.appendFile(entries.map((entry) => `${JSON.stringify(entry)}\n`).join(""));
  }

  /** Syncs all that was written and closes the files; the destination still does not exist. */
  async settle(): Promise<void> {
    await this.#checkpoint;
    await this.#sync();
    await this.#journal.sync();
    for (const file of this.#files.values()) await file.close();
    this.#files.clear();
  }

  async finish(): Promise<void> {
    await this.settle();
    await this.#journal.close();
    const destination = resolve(this.#options.destination);
    try {
      await syncFolder(join(this.folder, DATA));
      await writeFile(join(this.folder, VERIFIED), "");
      if (await exists(destination)) await rename(destination, join(this.folder, REPLACED));
      await rename(this.content, destination);
      await syncFolder(dirname(destination));
      await rm(this.folder, { recursive: true });
    } catch (error) {
      throw fromSystem(error, { file: destination });
    }
  }

  /** Takes everything away, as if nothing had been asked. */
  async discard(): Promise<void> {
    await this[Symbol.asyncDispose]();
    await rm(this.folder, { recursive: true, force: true });
    const made = this.#made ?? this.folder;
    for (let above = dirname(this.folder); above.length >= made.length; above = dirname(above)) {
      await rmdir(above);
    }
  }

  /** Leaves the staged files, with the journal naming what is finished. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.settle().catch(() => {}); // a full disk stays full; the journal then names what it could
    // What counts was synced; those that `settle` and `finish` closed are closed already.
    await Promise.allSettled([...this.#files.values(), this.#journal].map((file) => file.close()));
    this.#files.clear();
    await putBack(this.#options.destination);
  }
}

/** The old destination returns, where it was set aside and nothing took its place. */
async function putBack(destination: string): Promise<void> {
  const aside = join(stagingPath(destination), REPLACED);
  if ((await exists(aside)) && !(await exists(destination))) await rename(aside, destination);
}

/**
 * What the journal names, and the bytes it takes to say so. It ends at the first line that is not whole: a crash
 * cuts the last one short, or leaves zeros for it.
 */
async function readJournal(
  path: string,
  planId: string,
): Promise<{ finished: ReadonlyMap<string, JournalEntry>; size: number }> {
  const finished = new Map<string, JournalEntry>();
  const text = (await exists(path)) ? await readFile(path, "utf8") : "";
  const [first = "", ...rest] = text.match(/[^\n]*\n/g) ?? [];
  const head = parsed(Head, first);
  if (head === undefined) return { finished, size: 0 };
  if (head.plan !== planId) {
    throw new IsologitError("PLAN_CHANGED", "the staged files belong to another plan", { file: path });
  }
  let size = Buffer.byteLength(first);
  for (const line of rest) {
    const entry = parsed(Entry, line);
    if (entry === undefined) break;
    finished.set(entry.name, entry);
    size += Buffer.byteLength(line);
  }
  return { finished, size };
}

function parsed<T>(schema: z.ZodType<T>, line: string): T | undefined {
  try {
    return schema.safeParse(JSON.parse(line)).data;
  } catch {
    return undefined; // no JSON
  }
}

async function refuseFullDisk(folder: string, totalBytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  if (bavail * bsize < totalBytes) {
    await rm(folder, { recursive: true });
    throw new IsologitError("DISK_FULL", `${totalBytes} bytes are needed, ${bavail * bsize} are free`, {
      file: folder,
    });
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
