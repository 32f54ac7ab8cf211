/**
 * Fewer and earlier reads of a remote source. Reads that are requested at the same time and lie close together become one
 * request. For a reader that reads in order, the next bytes are fetched ahead. Memory is bounded.
 */
import { IsologitError } from "../core/errors.ts";
import type { ByteSource } from "../core/io.ts";

interface Coalescing {
  /** A gap of at most so many bytes between two reads is fetched too, to save a request; default 16 KiB. */
  readonly gapBytes?: number;
  /** Largest request that several reads share; default 4 MiB. */
  readonly sharedBytes?: number;
  /** Bytes fetched ahead of a reader in order; default 8 MiB. Reads shorter than an eighth of it start no fetch. */
  readonly aheadBytes?: number;
}

interface WaitingRead {
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
  let waiting: WaitingRead[] = [];
  let ahead: Ahead | undefined;
  let lastEnd = -1;
  const disposal = new AbortController();

  /** Collects the reads of one turn of the event loop. */
  function read(target: Uint8Array, offset: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const done = (error?: unknown) => (error === undefined ? resolve() : reject(error));
      if (waiting.push({ target, offset, signal, done }) === 1) queueMicrotask(flush);
    });
  }

  function flush(): void {
    const reads = waiting.sort((a, b) => a.offset - b.offset);
    waiting = [];
    let group: WaitingRead[] = [];
    let end = 0;
    for (const read of reads) {
      const readEnd = read.offset + read.target.byteLength;
      const fits = read.offset - end <= gapBytes && readEnd - (group[0]?.offset ?? 0) <= sharedBytes;
      if (group.length > 0 && !(fits && read.signal === group[0]!.signal)) {
        void serve(group);
        group = [];
      }
      end = Math.max(group.length > 0 ? end : 0, readEnd);
      group.push(read);
    }
    if (group.length > 0) void serve(group);
  }

  async function serve(group: readonly WaitingRead[]): Promise<void> {
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

  /** Starts to fetch the bytes after `offset`, unless that fetch has started or the file ends there. */
  function fetchAhead(offset: number): void {
    if (ahead !== undefined && ahead.offset === offset) return;
    const bytes = new Uint8Array(Math.min(aheadBytes, source.size - offset));
    if (bytes.byteLength === 0) return;
    const ready = source.readInto(bytes, offset, disposal.signal);
    ready.catch(() => {}); // handled by the reader that needs these bytes; without a handler Node would exit
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
      const fetched = ahead;
      const reach = fetched === undefined ? 0 : fetched.offset + fetched.bytes.byteLength;
      if (fetched === undefined || offset < fetched.offset || offset >= reach) {
        const reading = read(target, offset, signal);
        if (inOrder && end < source.size) fetchAhead(end);
        return await reading;
      }
      const known = Math.min(end, reach) - offset;
      const rest = end > reach ? read(target.subarray(known), reach, signal) : Promise.resolve();
      if (end >= reach) fetchAhead(end);
      const [knownRead, restRead] = await Promise.allSettled([fetched.ready, rest]);
      if (restRead.status === "rejected") throw restRead.reason;
      if (knownRead.status === "rejected") return await read(target.subarray(0, known), offset, signal);
      target.set(fetched.bytes.subarray(offset - fetched.offset, offset - fetched.offset + known));
    },
    async [Symbol.asyncDispose]() {
      disposal.abort();
      await ahead?.ready.catch(() => {});
      await source[Symbol.asyncDispose]();
    },
  };
}
