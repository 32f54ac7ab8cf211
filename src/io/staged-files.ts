/** The open files of a staged destination: created at their full size, then written and read at any offset. */
import { constants, type FileHandle, open } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { IsologitError, systemError } from "../core/errors.ts";
import { OpenPool } from "../core/io.ts";
import { directPart, hasDirectWrites, openDirect } from "./direct.ts";
import { makeFolders, syncFolder } from "./folders.ts";

interface StagedFile extends AsyncDisposable {
  readonly handle: FileHandle;
  /** for writes past the page cache, opened at the first such write */
  direct: Promise<FileHandle> | null;
}

export class StagedFiles {
  readonly #data: string;
  /** name of the file where the destination is one file */
  readonly #onlyName: string;
  readonly #created = new Set<string>();
  readonly #pool = new OpenPool((path) => this.#open(path));
  /** files and folders that changed since they were brought to the disk */
  readonly #changedFiles = new Set<string>();
  readonly #changedFolders = new Set<string>();
  readonly #syncing = new Set<Promise<void>>();
  /** set if bytes could not be brought to the disk: a later sync may succeed without them */
  #failure: { readonly error: unknown } | undefined;
  #isDirect: boolean;
  #isDirectRefused = false;
  #writtenBytes = 0;

  /**
   * @param data     folder in which the files are staged
   * @param content  path that will be the destination
   * @param isDirect large writes go past the page cache where the system can do that
   */
  constructor(data: string, content: string, isDirect: boolean) {
    this.#data = data;
    this.#onlyName = basename(content);
    this.#isDirect = isDirect && hasDirectWrites;
  }

  /** @param path as in the placement: "" is the one file of a destination that is a file */
  nameOf(path: string): string {
    return path === "" ? this.#onlyName : path;
  }

  pathOf(path: string): string {
    return join(this.#data, this.nameOf(path));
  }

  /** Bytes written so far. */
  get writtenBytes(): number {
    return this.#writtenBytes;
  }

  /** Creates a file of this size; bytes that an earlier run wrote stay. */
  async create(path: string, size: number): Promise<void> {
    const place = this.pathOf(path);
    try {
      const folders = await makeFolders(dirname(place));
      for (const folder of [place, ...folders]) this.#changedFolders.add(dirname(folder));
      const file = await open(place, "a+"); // not from the pool, which would sync each of many empty files when it closes them
      try {
        await file.truncate(size);
      } finally {
        await file.close();
      }
      this.#created.add(path);
      this.#changedFiles.add(path);
    } catch (error) {
      throw systemError(error, { file: place });
    }
  }

  async writeAt(path: string, offset: number, bytes: Uint8Array): Promise<void> {
    try {
      await this.#pool.use(path, async (file) => {
        await this.#write(file, path, offset, bytes);
        this.#changedFiles.add(path); // not before: a sync that runs meanwhile may miss these bytes
      });
    } catch (error) {
      throw systemError(error, { file: this.pathOf(path), offset });
    }
    this.#writtenBytes += bytes.byteLength;
  }

  /** The file system refused to write past the page cache. */
  get isDirectRefused(): boolean {
    return this.#isDirectRefused;
  }

  /** Whole blocks go past the page cache if they can; no block is written both ways. */
  async #write(file: StagedFile, path: string, offset: number, bytes: Uint8Array): Promise<void> {
    const part = this.#isDirect ? directPart(bytes, offset) : null;
    if (part === null) return await writeAll(file.handle, offset, bytes);
    const [from, to] = part;
    const middle = bytes.subarray(from, to);
    await writeAll(file.handle, offset, bytes.subarray(0, from));
    try {
      file.direct ??= openDirect(this.pathOf(path));
      await writeAll(await file.direct, offset + from, middle);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EINVAL") throw error;
      [this.#isDirect, this.#isDirectRefused] = [false, true];
      await writeAll(file.handle, offset + from, middle);
    }
    await writeAll(file.handle, offset + to, bytes.subarray(to));
  }

  /** @throws STAGING_CHANGED where the file is shorter than `create` made it */
  async readAt(path: string, offset: number, target: Uint8Array): Promise<void> {
    try {
      await this.#pool.use(path, async ({ handle }) => {
        for (let at = 0; at < target.byteLength; ) {
          const { bytesRead } = await handle.read(target, at, target.byteLength - at, offset + at);
          if (bytesRead === 0) throw stagingChangedError([this.nameOf(path)]);
          at += bytesRead;
        }
      });
    } catch (error) {
      throw systemError(error, { file: this.pathOf(path), offset });
    }
  }

  /** Brings all written bytes, and the names of all files, to the disk. */
  async sync(): Promise<void> {
    for (const folder of this.#changedFolders) {
      await syncFolder(folder).catch((error) => {
        throw systemError(error, { file: folder });
      });
      this.#changedFolders.delete(folder);
    }
    for (const path of [...this.#changedFiles])
      await this.#pool.use(path, ({ handle }) => this.#syncFile(path, handle));
    await Promise.all(this.#syncing); // of files that are being closed
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  async #syncFile(path: string, handle: FileHandle): Promise<void> {
    if (!this.#changedFiles.delete(path)) return; // before the call: a write meanwhile is a new change
    const syncing = handle.datasync().catch((error) => {
      this.#failure ??= { error: systemError(error, { file: this.pathOf(path) }) };
    });
    this.#syncing.add(syncing);
    await syncing;
    this.#syncing.delete(syncing);
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  async close(): Promise<void> {
    await this.#pool[Symbol.asyncDispose]();
  }

  /** Closes every file, whatever fails: all bytes that count were synced before. */
  async abandon(): Promise<void> {
    this.#changedFiles.clear();
    await this.close().catch(() => {});
  }

  /** Opens a file that `create` made. It is closed when many others are in use; its bytes are then on the disk. */
  async #open(path: string): Promise<StagedFile> {
    if (!this.#created.has(path)) throw new IsologitError("INTERNAL", `${path} was not created`);
    // O_NOFOLLOW: if a link replaced the file meanwhile, bytes elsewhere would be overwritten
    const flags = constants.O_RDWR | (constants.O_NOFOLLOW ?? 0);
    const handle = await open(this.pathOf(path), flags).catch((error) => {
      if (error.code === "ENOENT" || error.code === "ELOOP") throw stagingChangedError([this.nameOf(path)]);
      throw error;
    });
    const file: StagedFile = {
      handle,
      direct: null,
      [Symbol.asyncDispose]: async () => {
        try {
          await this.#syncFile(path, handle);
        } finally {
          await file.direct?.then(
            (direct) => direct.close(),
            () => {}, // it was never open
          );
          await handle.close();
        }
      },
    };
    return file;
  }
}

export async function writeAll(file: FileHandle, offset: number, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.byteLength; ) {
    at += (await file.write(bytes, at, bytes.byteLength - at, offset + at)).bytesWritten;
  }
}

/** @param cause the failure that the change led to */
export function stagingChangedError(paths: readonly string[], cause?: unknown): IsologitError {
  const [first] = paths;
  const more = paths.length > 1 ? `, with ${paths.length - 1} more` : "";
  const message = `something else changed staged files: ${first || "the file"}${more}`;
  return new IsologitError("STAGING_CHANGED", message, {}, { cause });
}
