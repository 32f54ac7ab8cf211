/**
 * The staged files of a destination. Everything is written into `DST.partial`; the destination itself appears in one
 * step, when all of it is there, synced and verified, and nothing of it has changed since. A journal of finished tensors
 * lets an interrupted run continue.
 */
import { type FileHandle, mkdir, open, rm, statfs } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { IsologitError, systemError } from "../core/errors.ts";
import {
  clearStaging,
  contentPath,
  DATA,
  type Destination,
  dropReplaced,
  JOURNAL,
  putBack,
  putInPlace,
  refuseExisting,
  refuseForeignStaging,
  stagingPath,
  stampsAt,
  syncFolder,
  unmarkVerified,
} from "./destination.ts";
import {
  fileStamp,
  pathsThatDiffer,
  removeUnplanned,
  type Stamp,
  type Stamps,
  stampsBelow,
} from "./inventory.ts";
import { Journal, type JournalEntry } from "./journal.ts";
import { exists, statIfPresent } from "./stamps.ts";

interface StagingOptions extends Destination {
  readonly planId: string;
  /** all that will be written; the disk must have room for it */
  readonly totalBytes: number;
  readonly resume: boolean;
  /** written bytes between two points at which data is synced and the journal may name it; default 256 MiB */
  readonly checkpointBytes?: number | undefined;
}

const CHECKPOINT_BYTES = 256 * 1024 * 1024;

export class Staging implements AsyncDisposable {
  /** `DST.partial` */
  readonly folder: string;
  /** what will be the destination: open this to verify before `finish` */
  readonly content: string;
  /** what the journal of an earlier run of the same plan names; its bytes are yet to be looked at */
  readonly finished: ReadonlyMap<string, JournalEntry>;
  readonly #options: StagingOptions;
  readonly #data: string;
  readonly #files = new Map<string, FileHandle>();
  readonly #journal: Journal;
  /** the destination as the run found it; null where nothing was */
  readonly #before: Stamps | null;
  #stamps = new Map<string, Stamp>();
  #pending: JournalEntry[] = [];
  #sinceCheckpoint = 0;
  #checkpoint: Promise<void> = Promise.resolve();

  private constructor(options: StagingOptions, journal: Journal, before: Stamps | null) {
    this.#options = options;
    this.#journal = journal;
    this.#before = before;
    this.finished = journal.entries;
    this.folder = stagingPath(options.destination);
    this.content = contentPath(options);
    this.#data = join(this.folder, DATA);
  }

  /**
   * For the holder of the destination's lock.
   *
   * @throws DESTINATION_EXISTS, STAGING_EXISTS unless told otherwise; PLAN_CHANGED when a staged folder is another
   * plan's; DISK_FULL before anything is written
   */
  static async open(options: StagingOptions): Promise<Staging> {
    const { destination, overwrite, resume } = options;
    const folder = stagingPath(destination);
    try {
      await refuseExisting(options);
      const isStaged = await exists(folder);
      if (isStaged && !resume && !overwrite) {
        throw new IsologitError("STAGING_EXISTS", "an earlier run left its staged files here", {
          file: folder,
        });
      }
      if (isStaged && resume) await refuseForeignStaging(folder);
      await putBack(destination);
      await refuseExisting(options);
      const before = await stampsAt(destination);
      if (isStaged && !resume) await rm(folder, { recursive: true });
      if (isStaged && resume) {
        await dropReplaced(folder);
        await unmarkVerified(folder);
      }
      await mkdir(join(folder, DATA), { recursive: true });
      const journal = await Journal.open(join(folder, JOURNAL), options.planId);
      try {
        if (journal.entries.size === 0) await refuseFullDisk(folder, options.totalBytes);
      } catch (error) {
        await journal[Symbol.asyncDispose]();
        throw error;
      }
      return new Staging(options, journal, before);
    } catch (error) {
      throw systemError(error, { file: folder });
    }
  }

  /** There may be bytes of an earlier run. */
  get isResumed(): boolean {
    return this.#options.resume;
  }

  /** @param path in the placement: "" is the one file of a destination that is a file */
  #nameOf(path: string): string {
    return path === "" ? basename(this.content) : path;
  }

  #place(path: string): string {
    return join(this.#data, this.#nameOf(path));
  }

  /**
   * Removes what is not planned, and what must not be written into, before the first file is created.
   *
   * @returns what nobody planned
   */
  async clean(paths: readonly string[]): Promise<readonly string[]> {
    const names = new Set(paths.map((path) => this.#nameOf(path)));
    try {
      // Through a link in place of the folder, what lies elsewhere would be removed, and then published.
      if (!((await statIfPresent(this.#data))?.isDirectory() ?? false)) throw stagedChange([DATA]);
      return (await removeUnplanned(this.#data, names)).strangers;
    } catch (error) {
      throw systemError(error, { file: this.#data });
    }
  }

  /** A file of that size; what an earlier run wrote into it stays. */
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
      throw systemError(error, { file: place });
    }
  }

  async writeAt(path: string, offset: number, bytes: Uint8Array): Promise<void> {
    try {
      await writeAll(this.#file(path), offset, bytes);
    } catch (error) {
      throw systemError(error, { file: this.#place(path), offset });
    }
    this.#sinceCheckpoint += bytes.byteLength;
  }

  /** What an earlier run wrote, while the files are open. */
  async readAt(path: string, offset: number, target: Uint8Array): Promise<void> {
    const file = this.#file(path);
    try {
      for (let at = 0; at < target.byteLength; ) {
        const { bytesRead } = await file.read(target, at, target.byteLength - at, offset + at);
        if (bytesRead === 0) throw stagedChange([this.#nameOf(path)]); // `create` gave it its size
        at += bytesRead;
      }
    } catch (error) {
      throw systemError(error, { file: this.#place(path), offset });
    }
  }

  #file(path: string): FileHandle {
    const file = this.#files.get(path);
    if (file === undefined) throw new IsologitError("INTERNAL", `${path} was not created`);
    return file;
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
        throw systemError(error, { file: this.#place(path) });
      });
    }
    await this.#journal.append(entries);
  }

  /** Syncs all that was written and closes the files; the destination still does not exist. */
  async settle(): Promise<void> {
    await this.#checkpoint;
    await this.#sync();
    await this.#journal.sync();
    for (const file of this.#files.values()) await file.close();
    this.#files.clear();
  }

  /**
   * Remembers the state of every staged file: what is verified from here on is what `finish` accepts.
   *
   * @returns what nobody planned, which is removed
   * @throws STAGING_CHANGED where a planned file is not there, or is not what was planned
   */
  async watchFiles(
    files: readonly { readonly path: string; readonly size: number }[],
  ): Promise<readonly string[]> {
    const strangers = await this.clean(files.map(({ path }) => path));
    this.#stamps = await stampsBelow(this.#data);
    const other = files.filter(({ path, size }) => this.#stamps.get(this.#nameOf(path))?.size !== size);
    if (other.length > 0) throw stagedChange(other.map(({ path }) => this.#nameOf(path)));
    return strangers;
  }

  /** Paths below the staged content that came, went or changed since `watchFiles`. */
  async changes(): Promise<readonly string[]> {
    return pathsThatDiffer(this.#stamps, await stampsBelow(this.#data));
  }

  /** Bytes of all staged files, as they are watched. */
  get bytes(): number {
    return [...this.#stamps.values()].reduce((sum, { size }) => sum + (size ?? 0), 0);
  }

  /**
   * Writes what follows from the verification: behind a file's end or over a part of it, or as a new file.
   *
   * @throws STAGING_CHANGED where the file is not as it was
   */
  async amend(path: string, offset: number, bytes: Uint8Array): Promise<void> {
    const place = this.#place(path);
    const stamp = this.#stamps.get(this.#nameOf(path));
    try {
      const file = await open(place, stamp === undefined ? "wx" : "r+");
      try {
        const isOther = fileStamp(await file.stat({ bigint: true })).state !== stamp?.state;
        if (stamp !== undefined && isOther) throw stagedChange([this.#nameOf(path)]);
        await writeAll(file, offset, bytes);
        await file.sync();
        this.#stamps.set(this.#nameOf(path), fileStamp(await file.stat({ bigint: true })));
      } finally {
        await file.close();
      }
    } catch (error) {
      throw systemError(error, { file: place });
    }
  }

  /**
   * The staged content becomes the destination.
   *
   * @returns null, or why what is left beside the destination could not be removed
   * @throws STAGING_CHANGED, DESTINATION_EXISTS; what was staged stays
   */
  async finish(): Promise<unknown> {
    await this.settle();
    await this.#journal[Symbol.asyncDispose]();
    try {
      for (const folder of new Set([...this.#stamps.keys()].map((name) => dirname(name)))) {
        await syncFolder(join(this.#data, folder));
      }
      const paths = await this.changes();
      if (paths.length > 0) throw stagedChange(paths);
      await putInPlace(this.#options, this.#before);
    } catch (error) {
      throw systemError(error, { file: this.#options.destination });
    }
    return await clearStaging(this.folder).then(
      () => null,
      (error) => error,
    );
  }

  /** Takes everything away, as if nothing had been asked. */
  async discard(): Promise<void> {
    await this[Symbol.asyncDispose]();
    await rm(this.folder, { recursive: true, force: true });
  }

  /** Leaves the staged files, with the journal naming what is finished. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.settle().catch(() => {}); // a full disk stays full; the journal then names what it could
    // What counts was synced; those that `settle` and `finish` closed are closed already.
    await Promise.allSettled([...this.#files.values()].map((file) => file.close()));
    await this.#journal[Symbol.asyncDispose]().catch(() => {});
    this.#files.clear();
    await putBack(this.#options.destination);
  }
}

async function writeAll(file: FileHandle, offset: number, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.byteLength; ) {
    at += (await file.write(bytes, at, bytes.byteLength - at, offset + at)).bytesWritten;
  }
}

/** @param cause what failed because of it */
export function stagedChange(paths: readonly string[], cause?: unknown): IsologitError {
  const [first] = paths;
  const more = paths.length > 1 ? `, with ${paths.length - 1} more` : "";
  const message = `what was staged was changed by something else: ${first || "the file"}${more}`;
  return new IsologitError("STAGING_CHANGED", message, {}, { cause });
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
