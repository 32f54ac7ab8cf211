/** The whole I/O contract: six small verbs are all that a storage must do. */
import { IsologitError } from "./errors.ts";

export interface ByteSource extends AsyncDisposable {
  readonly url: string;
  /** bytes */
  readonly size: number;
  /** Fills all of `target` from byte `offset`, or throws (TRUNCATED, IO_FAILED, FILE_CHANGED). */
  readInto(target: Uint8Array, offset: number, signal?: AbortSignal): Promise<void>;
}

export interface Store {
  /** what a person would call this place */
  readonly url: string;
  /** absolute paths of this folder, where the store is a local one */
  readonly roots?: readonly string[];
  /** Every file, by its path relative to the store with `/` between names, sorted; sizes in bytes. */
  list(): Promise<readonly { path: string; size: number }[]>;
  /** @throws NOT_FOUND */
  open(path: string): Promise<ByteSource>;
  /**
   * Looks once more at every file that was opened; absent where files do not change.
   *
   * @throws FILE_CHANGED
   */
  refuseChanged?(): Promise<void>;
}

/** All bytes of a small file. `maxBytes` guards against a file that pretends to be small. */
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
