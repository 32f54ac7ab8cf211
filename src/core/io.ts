/** What a storage must provide: a list of files, and reads of byte ranges; and how many of its files are open. */
import { IsologitError } from "./errors.ts";

export interface ByteSource extends AsyncDisposable {
  readonly url: string;
  /** bytes */
  readonly size: number;
  /** Fills all of `target` from byte `offset`, or throws (TRUNCATED, IO_FAILED, FILE_CHANGED). */
  readInto(target: Uint8Array, offset: number, signal?: AbortSignal): Promise<void>;
}

export interface Store {
  /** the address as the user knows it */
  readonly url: string;
  /** absolute paths of this folder; only of a local store */
  readonly roots?: readonly string[];
  /** Every file, by its path relative to the store with `/` between names, sorted; sizes in bytes. */
  list(): Promise<readonly { path: string; size: number }[]>;
  /** @throws NOT_FOUND */
  open(path: string): Promise<ByteSource>;
  /**
   * Checks again every file that was opened; absent if files cannot change.
   *
   * @throws FILE_CHANGED
   */
  refuseChanged?(): Promise<void>;
  /**
   * The state of every file, by path; the same on every machine that shares the files. A change of a file changes its state.
   * Absent if files cannot change.
   */
  stamps?(): Promise<Readonly<Record<string, string>>>;
}

/** All bytes of a file that should be small. @throws LIMIT_EXCEEDED if it has more than `maxBytes` */
export async function readSmall(store: Store, path: string, maxBytes: number): Promise<Uint8Array> {
  await using source = await store.open(path);
  if (source.size > maxBytes) {
    throw new IsologitError("LIMIT_EXCEEDED", `${source.size} bytes, expected at most ${maxBytes}`, {
      file: path,
    });
  }
  return await readRange(source, 0, source.size);
}

export async function readRange(source: ByteSource, offset: number, size: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(size);
  await source.readInto(bytes, offset);
  return bytes;
}

/** Open files of one pool. The files of a source, of its destination and of the program are open at the same time. */
const MAX_OPEN_FILES = 64;

/** An open file and the number of its current users. */
interface Opened<T> {
  readonly file: Promise<T>;
  users: number;
}

/** If too many files are open, those not used for longest are closed. */
export class OpenPool<T extends AsyncDisposable> implements AsyncDisposable {
  readonly #openFile: (path: string) => Promise<T>;
  readonly #maxOpen: number;
  /** in the order of their last use */
  readonly #opened = new Map<string, Opened<T>>();

  /** @param maxOpen files that stay open; more are open only while more are used at the same time */
  constructor(openFile: (path: string) => Promise<T>, maxOpen: number = MAX_OPEN_FILES) {
    this.#openFile = openFile;
    this.#maxOpen = maxOpen;
  }

  /** The result of `work`; the file stays open until `work` ends. */
  async use<R>(path: string, work: (file: T) => Promise<R>): Promise<R> {
    const opened = this.#opened.get(path) ?? { file: this.#openFile(path), users: 0 };
    this.#opened.delete(path);
    this.#opened.set(path, opened); // now the most recently used
    opened.users++;
    try {
      return await work(await opened.file);
    } finally {
      opened.users--;
      await this.#closeIdle();
    }
  }

  async #closeIdle(): Promise<void> {
    for (const [path, { file, users }] of this.#opened) {
      if (this.#opened.size <= this.#maxOpen) return;
      if (users > 0) continue;
      this.#opened.delete(path);
      await close(file);
    }
  }

  /** Closes every file, whatever fails. @throws the first failure */
  async [Symbol.asyncDispose](): Promise<void> {
    const files = [...this.#opened.values()];
    this.#opened.clear();
    const closed = await Promise.allSettled(files.map(({ file }) => close(file)));
    for (const end of closed) if (end.status === "rejected") throw end.reason;
  }
}

/** Closes a file. If opening it failed, `use` has already thrown that error, and there is nothing to close. */
async function close(file: Promise<AsyncDisposable>): Promise<void> {
  const opened = await file.catch(() => null);
  await opened?.[Symbol.asyncDispose]();
}
