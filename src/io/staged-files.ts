/** The open files of a staged destination: created at their full size, then written and read at any offset. */
import { type FileHandle, mkdir, open } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { IsologitError, systemError } from "../core/errors.ts";

export class StagedFiles {
  readonly #data: string;
  /** name of the file where the destination is one file */
  readonly #onlyName: string;
  readonly #files = new Map<string, FileHandle>();
  #writtenBytes = 0;

  /**
   * @param data    folder in which the files are staged
   * @param content path that will be the destination
   */
  constructor(data: string, content: string) {
    this.#data = data;
    this.#onlyName = basename(content);
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
      await mkdir(dirname(place), { recursive: true });
      const created = await open(place, "a+");
      await created.close();
      const file = await open(place, "r+");
      this.#files.set(path, file);
      await file.truncate(size);
    } catch (error) {
      throw systemError(error, { file: place });
    }
  }

  async writeAt(path: string, offset: number, bytes: Uint8Array): Promise<void> {
    try {
      await writeAll(this.#fileOf(path), offset, bytes);
    } catch (error) {
      throw systemError(error, { file: this.pathOf(path), offset });
    }
    this.#writtenBytes += bytes.byteLength;
  }

  /** @throws STAGING_CHANGED where the file is shorter than `create` made it */
  async readAt(path: string, offset: number, target: Uint8Array): Promise<void> {
    const file = this.#fileOf(path);
    try {
      for (let at = 0; at < target.byteLength; ) {
        const { bytesRead } = await file.read(target, at, target.byteLength - at, offset + at);
        if (bytesRead === 0) throw stagingChangedError([this.nameOf(path)]);
        at += bytesRead;
      }
    } catch (error) {
      throw systemError(error, { file: this.pathOf(path), offset });
    }
  }

  /** Brings all written bytes to the disk. */
  async sync(): Promise<void> {
    for (const [path, file] of this.#files) {
      await file.datasync().catch((error) => {
        throw systemError(error, { file: this.pathOf(path) });
      });
    }
  }

  async close(): Promise<void> {
    for (const file of this.#files.values()) await file.close();
    this.#files.clear();
  }

  /** Closes every file, whatever fails: all bytes that count were synced before. */
  async abandon(): Promise<void> {
    await Promise.allSettled([...this.#files.values()].map((file) => file.close()));
    this.#files.clear();
  }

  #fileOf(path: string): FileHandle {
    const file = this.#files.get(path);
    if (file === undefined) throw new IsologitError("INTERNAL", `${path} was not created`);
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
