/**
 * A gzip file as the file inside it: inflated once, to a temporary file that no name leads to, so that it is gone when
 * the process ends, however it ends. Ranges of a gzip cannot be read without all that stands before them.
 */
import { closeSync, fstatSync, openSync, read, writeSync } from "node:fs";
import { mkdtemp, rm, statfs } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable, Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { promisify } from "node:util";
import { createGunzip } from "node:zlib";
import { IsologitError, systemError } from "../core/errors.ts";
import { type ByteSource, readRange, type Store } from "../core/io.ts";

/** Read and written at a time. */
const BLOCK_BYTES = 1024 * 1024;
/** Weights shrink to some 80 %, and never to a hundredth: what does is made to fill disks. */
const MAX_RATIO = 100;
/** Up to here the ratio is nobody's concern. */
const SMALL_BYTES = 16 * 1024 * 1024;
/** Share of the free space of the temporary folder's disk that may be filled. */
const DISK_SHARE = 0.9;

/** An open file; closed, and its room given back, once no store and no source holds it. */
interface Held {
  readonly descriptor: number;
}
const abandoned = new FinalizationRegistry<number>((descriptor) => closeSync(descriptor));
const readAt = promisify(read);

interface GunzipOptions {
  /** bytes that the inflated file may have; default: nine tenths of what is free where temporary files go */
  readonly maxBytes?: number;
  readonly signal?: AbortSignal;
}

/**
 * `store`, or, where it is one file and that is a gzip, the same with the inflated file in its place.
 *
 * @throws LIMIT_EXCEEDED, ARCHIVE_INVALID, TRUNCATED, DISK_FULL, INTERRUPTED
 */
export async function gunzipOnce(store: Store, options: GunzipOptions = {}): Promise<Store> {
  const [only, ...more] = await store.list();
  if (only === undefined || more.length > 0 || !(await isGzip(store, only.path))) return store;
  const { path } = only;
  await using source = await store.open(path);
  const held = await inflate(source, path, options);
  const { size } = fstatSync(held.descriptor);
  return {
    url: store.url,
    list: async () => [{ path, size }],
    async open(name) {
      if (name !== path) throw new IsologitError("NOT_FOUND", "no such file", { file: name });
      return sourceOf(held, store.url, path, size);
    },
  };
}

async function isGzip(store: Store, path: string): Promise<boolean> {
  await using source = await store.open(path);
  const [a, b] = await readRange(source, 0, Math.min(source.size, 2));
  return a === 0x1f && b === 0x8b;
}

/** @returns a file that is open and has no name any more */
async function inflate(source: ByteSource, path: string, options: GunzipOptions): Promise<Held> {
  const folder = await mkdtemp(join(tmpdir(), "isologit-spool-"));
  try {
    const { bavail, bsize } = await statfs(folder);
    const maxBytes = options.maxBytes ?? Math.floor(bavail * bsize * DISK_SHARE);
    const descriptor = openSync(join(folder, "inflated"), "wx+");
    try {
      const signal = options.signal === undefined ? {} : { signal: options.signal };
      await pipeline(
        Readable.from(blocksOf(source)),
        createGunzip({ chunkSize: BLOCK_BYTES }),
        limited(maxBytes, Math.max(SMALL_BYTES, source.size * MAX_RATIO), path),
        async (blocks) => {
          for await (const block of blocks) writeAll(descriptor, block);
        },
        signal,
      );
      const held = { descriptor };
      abandoned.register(held, descriptor);
      return held;
    } catch (error) {
      closeSync(descriptor);
      throw faultOf(error, path);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function* blocksOf(source: ByteSource): AsyncIterable<Uint8Array> {
  for (let at = 0; at < source.size; at += BLOCK_BYTES) {
    yield await readRange(source, at, Math.min(BLOCK_BYTES, source.size - at));
  }
}

function limited(maxBytes: number, maxRatioBytes: number, file: string): Transform {
  let bytes = 0;
  return new Transform({
    transform(block: Uint8Array, _encoding, done) {
      bytes += block.byteLength;
      if (bytes <= Math.min(maxBytes, maxRatioBytes)) return done(null, block);
      const message =
        bytes > maxRatioBytes
          ? `the gzip inflates to more than ${MAX_RATIO} times its size`
          : `the gzip inflates to more than ${maxBytes} bytes, the room for temporary files`;
      const next = "inflate it yourself, with `gunzip`, where there is room, or set TMPDIR to a larger disk";
      done(new IsologitError("LIMIT_EXCEEDED", message, { file }, bytes > maxRatioBytes ? {} : { next }));
    },
  });
}

function faultOf(error: unknown, file: string): unknown {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  if (code === "Z_BUF_ERROR") {
    return new IsologitError("TRUNCATED", "the gzip stops before its end", { file }, { cause: error });
  }
  if (code.startsWith("Z_")) {
    return new IsologitError("ARCHIVE_INVALID", "the gzip is damaged", { file }, { cause: error });
  }
  return systemError(error, { file });
}

/** One write may take less than it is given. */
function writeAll(descriptor: number, block: Uint8Array): void {
  for (let done = 0; done < block.byteLength; ) done += writeSync(descriptor, block, done);
}

/** Sources share the file: closing one closes nothing. */
function sourceOf(held: Held, url: string, file: string, size: number): ByteSource {
  return {
    url,
    size,
    async readInto(target, offset, signal) {
      if (offset + target.byteLength > size) {
        const message = `the inflated file has ${size} bytes; ${target.byteLength} were wanted from byte ${offset}`;
        throw new IsologitError("TRUNCATED", message, { file, offset: size });
      }
      for (let done = 0; done < target.byteLength; ) {
        if (signal?.aborted) throw new IsologitError("INTERRUPTED", "stopped on request", { file });
        const count = Math.min(target.byteLength - done, 64 * BLOCK_BYTES);
        try {
          const { bytesRead } = await readAt(held.descriptor, target, done, count, offset + done);
          if (bytesRead === 0)
            throw new IsologitError("IO_FAILED", "the inflated file is cut short", { file });
          done += bytesRead;
        } catch (error) {
          throw systemError(error, { file, offset: offset + done });
        }
      }
    },
    async [Symbol.asyncDispose]() {},
  };
}
