/**
 * Reads of a distant source made fewer and earlier: those that are asked for together and lie close to each other
 * become one, and a reader who goes on and on finds the next bytes under way already. Memory is bounded.
 */
import { IsologitError } from "../core/errors.ts";
import type { ByteSource } from "../core/io.ts";

interface Coalescing {
  /** Bytes between two reads that are cheaper fetched than asked for apart; default 16 KiB. */
  readonly gapBytes?: number;
  /** One request is never longer for being shared; default 4 MiB. */
  readonly sharedBytes?: number;
  /** Fetched ahead of a reader in order; default 8 MiB. Reads shorter than an eighth of it do not set it off. */
  readonly aheadBytes?: number;
}

interface Wish {
  readonly target: Uint8Array;
  readonly offset: number;
  readonly signal: AbortSignal | undefined;
  readonly done: (error?: unknown) => void;
}

interface Ahead {
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly ready: Promise<void>;
}

export function coalesceReads(source: ByteSource, options: Coalescing = {}): ByteSource {
  const { gapBytes = 16 * 1024, sharedBytes = 4 * 1024 * 1024, aheadBytes = 8 * 1024 * 1024 } = options;
  let waiting: Wish[] = [];
  let ahead: Ahead | undefined;
  let lastEnd = -1;
  const over = new AbortController();

  /** What is asked for in one turn of the event loop is looked at together. */
  function read(target: Uint8Array, offset: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const done = (error?: unknown) => (error === undefined ? resolve() : reject(error));
      if (waiting.push({ target, offset, signal, done }) === 1) queueMicrotask(flush);
    });
  }

  function flush(): void {
    const wishes = waiting.sort((a, b) => a.offset - b.offset);
    waiting = [];
    let group: Wish[] = [];
    let end = 0;
    for (const wish of wishes) {
      const wishEnd = wish.offset + wish.target.byteLength;
      const fits = wish.offset - end <= gapBytes && wishEnd - (group[0]?.offset ?? 0) <= sharedBytes;
      if (group.length > 0 && !(fits && wish.signal === group[0]!.signal)) {
        void serve(group);
        group = [];
      }
      end = Math.max(group.length > 0 ? end : 0, wishEnd);
      group.push(wish);
    }
    if (group.length > 0) void serve(group);
  }

  async function serve(group: readonly Wish[]): Promise<void> {
    const [first] = group;
    try {
      if (group.length === 1) await source.readInto(first!.target, first!.offset, first!.signal);
      else {
        const end = Math.max(...group.map(({ offset, target }) => offset + target.byteLength));
        const shared = new Uint8Array(end - first!.offset);
        await source.readInto(shared, first!.offset, first!.signal);
        for (const { target, offset } of group) {
          const from = offset - first!.offset;
          target.set(shared.subarray(from, from + target.byteLength));
        }
      }
      for (const { done } of group) done();
    } catch (error) {
      for (const { done } of group) done(error);
    }
  }

  /** The next bytes after `offset`, unless they are under way or there are none. */
  function fetchAhead(offset: number): void {
    if (ahead !== undefined && ahead.offset === offset) return;
    const bytes = new Uint8Array(Math.min(aheadBytes, source.size - offset));
    if (bytes.byteLength === 0) return;
    const ready = source.readInto(bytes, offset, over.signal);
    ready.catch(() => {}); // whoever needs it finds out
    ahead = { offset, bytes, ready };
  }

  return {
    url: source.url,
    size: source.size,
    async readInto(target, offset, signal) {
      if (signal?.aborted) throw new IsologitError("INTERRUPTED", "stopped on request", { file: source.url });
      const end = offset + target.byteLength;
      const inOrder = offset === lastEnd && target.byteLength * 8 >= aheadBytes;
      lastEnd = end;
      const have = ahead;
      const reach = have === undefined ? 0 : have.offset + have.bytes.byteLength;
      if (have === undefined || offset < have.offset || offset >= reach) {
        const reading = read(target, offset, signal);
        if (inOrder && end < source.size) fetchAhead(end);
        return await reading;
      }
      const known = Math.min(end, reach) - offset;
      const rest = end > reach ? read(target.subarray(known), reach, signal) : Promise.resolve();
      if (end >= reach) fetchAhead(end);
      const [came, restCame] = await Promise.allSettled([have.ready, rest]);
      if (restCame.status === "rejected") throw restCame.reason;
      if (came.status === "rejected") return await read(target.subarray(0, known), offset, signal);
      target.set(have.bytes.subarray(offset - have.offset, offset - have.offset + known));
    },
    async [Symbol.asyncDispose]() {
      over.abort();
      await ahead?.ready.catch(() => {});
      await source[Symbol.asyncDispose]();
    },
  };
}
