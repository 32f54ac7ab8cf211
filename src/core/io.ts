/** What a storage must provide: a list of files, and reads of byte ranges. */
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
