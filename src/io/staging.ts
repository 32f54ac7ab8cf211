/**
 * The staged files of a destination. Everything is written into `DST.partial`. The destination itself appears in one
 * step, after all files are written, synced and verified, and only if they have not changed since. A journal of finished
 * tensors lets an interrupted run continue.
 */
import { open, rm, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
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
  unmarkVerified,
} from "./destination.ts";
import { makeFolders, syncFolder } from "./folders.ts";
import {
  fileStamp,
  pathsThatDiffer,
  removeUnplanned,
  type Stamp,
  type Stamps,
  stampsBelow,
} from "./inventory.ts";
import { Journal, type JournalEntry, readEntries } from "./journal.ts";
import { StagedFiles, stagingChangedError, writeAll } from "./staged-files.ts";
import { entriesBelow, pathExists, statIfPresent } from "./stamps.ts";
import {
  MERGE_JOURNAL,
  refuseOtherDivision,
  refuseTasks,
  type Task,
  taskJournal,
  tasksIn,
} from "./tasks/task-files.ts";

interface StagingOptions extends Destination {
  readonly planId: string;
  /** bytes of all files together; the disk must have room for them */
  readonly totalBytes: number;
  readonly resume: boolean;
  /** written bytes between two points at which data is synced and the journal may name it; default 1 GiB */
  readonly checkpointBytes?: number | undefined;
  /** large writes go past the page cache where the system can do that; default true */
  readonly isDirect?: boolean;
  /**
   * a task: this process writes a part of the files, beside other processes; "merge": it completes what tasks wrote; absent:
   * it writes everything
   */
  readonly part?: Task | "merge" | undefined;
}

const CHECKPOINT_BYTES = 1024 ** 3;

export class Staging implements AsyncDisposable {
  /** `DST.partial` */
  readonly folder: string;
  /** path of the staged files: verify them there before `finish` moves them to the destination */
  readonly content: string;
  /** tensors that the journal of an earlier run of the same plan names; their bytes are not checked yet */
  readonly finished: ReadonlyMap<string, JournalEntry>;
  readonly #options: StagingOptions;
  readonly #data: string;
  readonly #files: StagedFiles;
  readonly #journal: Journal;
  /** the destination as the run found it; null if there was none */
  readonly #before: Stamps | null;
  #stamps = new Map<string, Stamp>();
  #pending: JournalEntry[] = [];
  #checkpointAt = 0;
  #checkpoint: Promise<void> = Promise.resolve();

  private constructor(
    options: StagingOptions,
    journal: Journal,
    before: Stamps | null,
    finished: ReadonlyMap<string, JournalEntry> = journal.entries,
  ) {
    this.#options = options;
    this.#journal = journal;
    this.#before = before;
    this.finished = finished;
    this.folder = stagingPath(options.destination);
    this.content = contentPath(options);
    this.#data = join(this.folder, DATA);
    this.#files = new StagedFiles(this.#data, this.content, options.isDirect ?? true);
  }

  /**
   * The caller holds the destination's lock.
   *
   * @throws DESTINATION_EXISTS, STAGING_EXISTS unless the options allow it; PLAN_CHANGED when a staged folder belongs to
   * another plan; DISK_FULL before anything is written
   */
  static async open(options: StagingOptions): Promise<Staging> {
    const { destination, overwrite, resume, part } = options;
    const folder = stagingPath(destination);
    try {
      if (typeof part === "object") return await Staging.#openTask(options, part, folder);
      await refuseExisting(options);
      const isStaged = await pathExists(folder);
      if (isStaged && !resume && !overwrite) {
        throw new IsologitError("STAGING_EXISTS", "an earlier run left its staged files here", {
          file: folder,
        });
      }
      if (isStaged && resume) await refuseForeignStaging(folder);
      if (isStaged && part === undefined) await refuseTasks(folder, !resume);
      await putBack(destination);
      await refuseExisting(options);
      const before = await stampsAt(destination);
      if (isStaged && !resume) await rm(folder, { recursive: true });
      if (isStaged && resume) {
        await dropReplaced(folder);
        await unmarkVerified(folder);
      }
      await makeFolders(join(folder, DATA));
      const isMerge = part === "merge";
      const finished = isMerge ? await entriesOfTasks(folder, options.planId) : undefined;
      const journal = await Journal.open(join(folder, isMerge ? MERGE_JOURNAL : JOURNAL), options.planId);
      try {
        if (!isMerge && journal.entries.size === 0) await refuseFullDisk(folder, options.totalBytes);
        for (const changed of [folder, dirname(folder)]) await syncFolder(changed);
      } catch (error) {
        await journal[Symbol.asyncDispose]();
        throw error;
      }
      return new Staging(options, journal, before, finished);
    } catch (error) {
      throw systemError(error, { file: folder });
    }
  }

  /** Joins the tasks that write the same files. Nothing is removed: other tasks may have written it. */
  static async #openTask(options: StagingOptions, task: Task, folder: string): Promise<Staging> {
    await refuseExisting(options);
    await refuseForeignStaging(folder);
    const data = join(folder, DATA);
    await makeFolders(data);
    for (const changed of [folder, dirname(folder)]) await syncFolder(changed);
    if (await pathExists(join(folder, JOURNAL))) {
      const message = "a run in one process left its staged files here";
      const next = "finish that run with `resume`, or remove the folder";
      throw new IsologitError("STAGING_EXISTS", message, { file: folder }, { next });
    }
    const journal = await Journal.open(join(folder, taskJournal(task)), options.planId);
    try {
      // after the own journal is there: of two tasks of different plans that begin together, one sees the other
      const tasks = await tasksIn(folder);
      refuseOtherDivision(tasks, folder, task.count);
      const other = tasks.find(({ index }) => index !== task.index);
      if (other !== undefined) await readEntries(join(folder, taskJournal(other)), options.planId);
      const { staged, links } = await contentOf(data);
      if (links.length > 0) throw stagingChangedError(links);
      await refuseFullDisk(folder, options.totalBytes - staged, false);
    } catch (error) {
      await journal[Symbol.asyncDispose]();
      throw error;
    }
    return new Staging(options, journal, null);
  }

  /** Staged files may hold bytes of an earlier run. */
  get isResumed(): boolean {
    return this.#options.resume;
  }

  /**
   * Removes files that are not planned, and files that must not be written into, before the first file is created.
   *
   * @returns paths that no plan has
   */
  async clean(paths: readonly string[]): Promise<readonly string[]> {
    const names = new Set(paths.map((path) => this.#files.nameOf(path)));
    try {
      // If a link replaced the folder, files elsewhere would be removed, and then published.
      if (!((await statIfPresent(this.#data))?.isDirectory() ?? false)) throw stagingChangedError([DATA]);
      return (await removeUnplanned(this.#data, names)).strangers;
    } catch (error) {
      throw systemError(error, { file: this.#data });
    }
  }

  async create(path: string, size: number): Promise<void> {
    await this.#files.create(path, size);
  }

  async writeAt(path: string, offset: number, bytes: Uint8Array): Promise<void> {
    await this.#files.writeAt(path, offset, bytes);
  }

  async readAt(path: string, offset: number, target: Uint8Array): Promise<void> {
    await this.#files.readAt(path, offset, target);
  }

  /** The file system refused to write past the page cache. */
  get isDirectRefused(): boolean {
    return this.#files.isDirectRefused;
  }

  /** Notes a finished tensor. The journal names it after its bytes are synced. */
  note(entry: JournalEntry): void {
    this.#pending.push(entry);
    const { writtenBytes } = this.#files;
    if (writtenBytes - this.#checkpointAt < (this.#options.checkpointBytes ?? CHECKPOINT_BYTES)) return;
    this.#checkpointAt = writtenBytes;
    this.#checkpoint = this.#checkpoint.then(() => this.#sync());
    this.#checkpoint.catch(() => {}); // `settle` rethrows; without a handler here Node would exit on the rejection
  }

  async #sync(): Promise<void> {
    const entries = this.#pending;
    this.#pending = [];
    await this.#files.sync();
    await this.#journal.append(entries);
  }

  /** Syncs all written bytes and closes the files; the destination still does not exist. */
  async settle(): Promise<void> {
    await this.#checkpoint;
    await this.#sync();
    await this.#journal.sync();
    await this.#files.close();
  }

  /**
   * Remembers the state of every staged file. `finish` accepts only this state, so verification may start now.
   *
   * @returns paths that no plan has; they are removed
   * @throws STAGING_CHANGED where a planned file is missing or has another size
   */
  async watchFiles(
    files: readonly { readonly path: string; readonly size: number }[],
  ): Promise<readonly string[]> {
    const strangers = await this.clean(files.map(({ path }) => path));
    this.#stamps = await stampsBelow(this.#data);
    const names = files.map(({ path, size }) => ({ name: this.#files.nameOf(path), size }));
    const changed = names.filter(({ name, size }) => this.#stamps.get(name)?.size !== size);
    if (changed.length > 0) throw stagingChangedError(changed.map(({ name }) => name));
    return strangers;
  }

  /** Paths below the staged content that appeared, vanished or changed since `watchFiles`. */
  async changes(): Promise<readonly string[]> {
    return pathsThatDiffer(this.#stamps, await stampsBelow(this.#data));
  }

  /** Bytes of all watched files. */
  get bytes(): number {
    return [...this.#stamps.values()].reduce((sum, { size }) => sum + (size ?? 0), 0);
  }

  /**
   * Writes what the verification found: behind a file's end, over a part of it, or as a new file.
   *
   * @throws STAGING_CHANGED where the file changed since `watchFiles`
   */
  async amend(path: string, offset: number, bytes: Uint8Array): Promise<void> {
    const [name, place] = [this.#files.nameOf(path), this.#files.pathOf(path)];
    const stamp = this.#stamps.get(name);
    try {
      const file = await open(place, stamp === undefined ? "wx" : "r+");
      try {
        const { state } = fileStamp(await file.stat({ bigint: true }));
        if (stamp !== undefined && state !== stamp.state) throw stagingChangedError([name]);
        try {
          await writeAll(file, offset, bytes);
          await file.sync();
        } finally {
          this.#stamps.set(name, fileStamp(await file.stat({ bigint: true }))); // a failed write is no change by others
        }
      } finally {
        await file.close();
      }
    } catch (error) {
      throw systemError(error, { file: place });
    }
  }

  /**
   * Makes the staged content the destination.
   *
   * @returns null, or why the rest of the staging folder could not be removed
   * @throws STAGING_CHANGED, DESTINATION_EXISTS; the staged files stay
   */
  async finish(): Promise<unknown> {
    await this.settle();
    await this.#journal[Symbol.asyncDispose]();
    try {
      for (const folder of new Set([...this.#stamps.keys()].map((name) => dirname(name)))) {
        await syncFolder(join(this.#data, folder));
      }
      const paths = await this.changes();
      if (paths.length > 0) throw stagingChangedError(paths);
      await putInPlace(this.#options, this.#before);
    } catch (error) {
      throw systemError(error, { file: this.#options.destination });
    }
    return await clearStaging(this.folder).then(
      () => null,
      (error) => error,
    );
  }

  /** Removes all staged files. */
  async discard(): Promise<void> {
    await this[Symbol.asyncDispose]();
    await rm(this.folder, { recursive: true, force: true });
  }

  /** Leaves the staged files, with a journal that names the finished tensors. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.settle().catch(() => {}); // on a full disk the journal names the tensors that it could
    await this.#files.abandon();
    await this.#journal[Symbol.asyncDispose]().catch(() => {});
    if (typeof this.#options.part !== "object") await putBack(this.#options.destination);
  }
}

/** What the journals of all tasks name, and what an interrupted merge wrote again. @throws PLAN_CHANGED */
async function entriesOfTasks(folder: string, planId: string): Promise<ReadonlyMap<string, JournalEntry>> {
  const journals = [...(await tasksIn(folder)).map(taskJournal), MERGE_JOURNAL];
  const all = new Map<string, JournalEntry>();
  for (const name of journals) {
    const { entries } = await readEntries(join(folder, name), planId);
    for (const [key, entry] of entries) all.set(key, entry);
  }
  return all;
}

/** Bytes on the disk below a folder, and files in it that are links or have a second name. */
async function contentOf(
  folder: string,
): Promise<{ readonly staged: number; readonly links: readonly string[] }> {
  const entries = await entriesBelow(folder);
  const isOwn = ({ about }: (typeof entries)[number]) =>
    about.isDirectory() || (about.isFile() && about.nlink === 1n);
  return {
    staged: entries.reduce((sum, { about }) => sum + Number(about.blocks) * 512, 0),
    links: entries.filter((entry) => !isOwn(entry)).map(({ path }) => path),
  };
}

/** @param removes remove the folder, in which nothing is written yet */
async function refuseFullDisk(folder: string, totalBytes: number, removes = true): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  const freeBytes = bavail * bsize;
  if (freeBytes >= totalBytes) return;
  if (removes) await rm(folder, { recursive: true });
  const message = `${totalBytes} bytes are needed, ${freeBytes} are free`;
  throw new IsologitError("DISK_FULL", message, { file: folder });
}
