/** A Store over bytes in memory, and one that counts what is asked of another. */
import { IsologitError } from "../core/errors.ts";
import type { ByteSource, Store } from "../core/io.ts";

/** The map is the store: files added to it later are seen. */
export function memoryStore(url: string, files: ReadonlyMap<string, Uint8Array>): Store {
  return {
    url,
    async list() {
      const all = [...files].map(([path, bytes]) => ({ path, size: bytes.byteLength }));
      return all.sort((a, b) => (a.path < b.path ? -1 : 1));
    },
    async open(path) {
      const bytes = files.get(path);
      if (bytes === undefined) throw new IsologitError("NOT_FOUND", "no such file", { file: path });
      return memorySource(path, bytes);
    },
  };
}

/** Bytes in memory as a source; `path` is what errors call it. */
export function memorySource(path: string, bytes: Uint8Array): ByteSource {
  return {
    url: path,
    size: bytes.byteLength,
    async readInto(target, offset, signal) {
      if (signal?.aborted) throw new IsologitError("INTERRUPTED", "stopped on request", { file: path });
      if (offset + target.byteLength > bytes.byteLength) {
        const message = `the file has ${bytes.byteLength} bytes; ${target.byteLength} were requested from byte ${offset}`;
        throw new IsologitError("TRUNCATED", message, { file: path, offset: bytes.byteLength });
      }
      target.set(bytes.subarray(offset, offset + target.byteLength));
    },
    async [Symbol.asyncDispose]() {},
  };
}

interface Count {
  /** sources opened, and closed again */
  opened: number;
  closed: number;
  /** calls of `readInto`, and the bytes they filled */
  reads: number;
  bytes: number;
}

/** `store`, and beside it what was asked of it, by path: "reads little" becomes an assertion. */
export function countedStore(store: Store): { readonly store: Store; readonly counts: Map<string, Count> } {
  const counts = new Map<string, Count>();
  const open = async (path: string): Promise<ByteSource> => {
    const source = await store.open(path);
    const count = counts.get(path) ?? { opened: 0, closed: 0, reads: 0, bytes: 0 };
    counts.set(path, count);
    count.opened++;
    return {
      url: source.url,
      size: source.size,
      async readInto(target, offset, signal) {
        await source.readInto(target, offset, signal);
        count.reads++;
        count.bytes += target.byteLength;
      },
      async [Symbol.asyncDispose]() {
        count.closed++;
        await source[Symbol.asyncDispose]();
      },
    };
  };
  return { store: { url: store.url, list: () => store.list(), open }, counts };
}
