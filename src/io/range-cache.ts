/** Small reads of a distant file are kept in memory: a header that is read to plan is read again to be copied. */
import type { ByteSource } from "../core/io.ts";

/** Longer reads are data, which is read in order and not looked at again. */
const MAX_READ_BYTES = 1024 * 1024;
/** All files of a store together: the headers of a thousand shards. */
const MAX_BYTES = 64 * 1024 * 1024;

interface Stretch {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** What was read of the files of one store, by their names. */
export class RangeCache {
  readonly #stretches = new Map<string, readonly Stretch[]>();
  #bytes = 0;

  /** Fills `target` if every byte of it was read before. */
  fill(path: string, target: Uint8Array, offset: number): boolean {
    const end = offset + target.byteLength;
    const known = this.#stretches.get(path)?.find((one) => one.offset <= offset && endOf(one) >= end);
    if (known === undefined) return false;
    target.set(known.bytes.subarray(offset - known.offset, end - known.offset));
    return true;
  }

  /** Stretches that touch become one. */
  keep(path: string, bytes: Uint8Array, offset: number): void {
    if (bytes.byteLength > MAX_READ_BYTES || this.#bytes + bytes.byteLength > MAX_BYTES) return;
    const all = this.#stretches.get(path) ?? [];
    const end = offset + bytes.byteLength;
    const apart = all.filter((one) => endOf(one) < offset || one.offset > end);
    const joined = all.filter((one) => !apart.includes(one));
    const from = Math.min(offset, ...joined.map((one) => one.offset));
    const whole = new Uint8Array(Math.max(end, ...joined.map(endOf)) - from);
    for (const one of [...joined, { offset, bytes }]) whole.set(one.bytes, one.offset - from);
    this.#stretches.set(path, [...apart, { offset: from, bytes: whole }]);
    this.#bytes += whole.byteLength - joined.reduce((sum, one) => sum + one.bytes.byteLength, 0);
  }
}

const endOf = ({ offset, bytes }: Stretch): number => offset + bytes.byteLength;

/** `source`, asked only for what nobody remembers. */
export function cacheRanges(source: ByteSource, path: string, recall: RangeCache): ByteSource {
  return {
    url: source.url,
    size: source.size,
    async readInto(target, offset, signal) {
      if (recall.fill(path, target, offset)) return;
      await source.readInto(target, offset, signal);
      recall.keep(path, target, offset);
    },
    [Symbol.asyncDispose]: () => source[Symbol.asyncDispose](),
  };
}
