/** Keeps small reads of a remote file in memory: a header is read once for the plan and again for the copy. */
import type { ByteSource } from "../core/io.ts";

/** Longer reads are weights: they are read in order, and rarely again. */
const MAX_READ_BYTES = 1024 * 1024;
/** Limit for all files of a store together: enough for the headers of a thousand weight files. */
const MAX_BYTES = 64 * 1024 * 1024;

interface CachedRange {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** Ranges of the files of one store, by path. */
export class RangeCache {
  readonly #ranges = new Map<string, readonly CachedRange[]>();
  #bytes = 0;

  /** Fills `target` if every byte of it was read before. */
  fill(path: string, target: Uint8Array, offset: number): boolean {
    const end = offset + target.byteLength;
    const known = this.#ranges.get(path)?.find((range) => range.offset <= offset && endOf(range) >= end);
    if (known === undefined) return false;
    target.set(known.bytes.subarray(offset - known.offset, end - known.offset));
    return true;
  }

  /** Keeps a range; ranges that touch become one. */
  keep(path: string, bytes: Uint8Array, offset: number): void {
    if (bytes.byteLength > MAX_READ_BYTES || this.#bytes + bytes.byteLength > MAX_BYTES) return;
    const all = this.#ranges.get(path) ?? [];
    const end = offset + bytes.byteLength;
    const apart = all.filter((range) => endOf(range) < offset || range.offset > end);
    const joined = all.filter((range) => !apart.includes(range));
    const from = Math.min(offset, ...joined.map((range) => range.offset));
    const whole = new Uint8Array(Math.max(end, ...joined.map(endOf)) - from);
    for (const range of [...joined, { offset, bytes }]) whole.set(range.bytes, range.offset - from);
    this.#ranges.set(path, [...apart, { offset: from, bytes: whole }]);
    this.#bytes += whole.byteLength - joined.reduce((sum, range) => sum + range.bytes.byteLength, 0);
  }
}

const endOf = ({ offset, bytes }: CachedRange): number => offset + bytes.byteLength;

/** Wraps `source`: ranges read before come from memory. */
export function cacheRanges(source: ByteSource, path: string, cache: RangeCache): ByteSource {
  return {
    url: source.url,
    size: source.size,
    async readInto(target, offset, signal) {
      if (cache.fill(path, target, offset)) return;
      await source.readInto(target, offset, signal);
      cache.keep(path, target, offset);
    },
    [Symbol.asyncDispose]: () => source[Symbol.asyncDispose](),
  };
}
