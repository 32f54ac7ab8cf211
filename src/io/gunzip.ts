/**
 * A gzip file as the file inside it. A range of a gzip cannot be read without all bytes before it, so the file is inflated
 * once, into a temporary file whose name is removed: the file system frees it when the process ends, in whatever way.
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

/** Bytes read and written at a time. */
const BLOCK_BYTES = 1024 * 1024;
/** Weights shrink to some 80 %, never to a hundredth. A file that does is made to fill disks. */
const MAX_RATIO = 100;
/** A file that inflates to no more than this may have any ratio. */
const SMALL_BYTES = 16 * 1024 * 1024;
/** Share of the free space of the temporary folder's disk that may be filled. */
const DISK_SHARE = 0.9;

/** An open file. It is closed, and its disk space freed, when no store and no source refers to it. */
interface InflatedFile {
  readonly descriptor: number;
}
const abandoned = new FinalizationRegistry<number>((descriptor) => closeSync(descriptor));
const readAt = promisify(read);

interface GunzipOptions {
  /** largest inflated file, bytes; default: nine tenths of the free space for temporary files */
  readonly maxBytes?: number;
  readonly signal?: AbortSignal;
}

/**
 * `store`, or, if its only file is a gzip, a store with the inflated file in its place.
 *
 * @throws LIMIT_EXCEEDED, ARCHIVE_INVALID, TRUNCATED, DISK_FULL, INTERRUPTED
 */
export async function gunzipOnce(store: Store, options: GunzipOptions = {}): Promise<Store> {
  const [only, ...more] = await store.list();
  if (only === undefined || more.length > 0 || !(await isGzip(store, only.path))) return store;
  const { path } = only;
  await using source = await store.open(path);
  const inflated = await inflate(source, path, options);
  const { size } = fstatSync(inflated.descriptor);
  return {
    url: store.url,
    list: async () => [{ path, size }],
    async open(name) {
      if (name !== path) throw new IsologitError("NOT_FOUND", "no such file", { file: name });
      return sourceOf(inflated, store.url, path, size);
    },
  };
}

async function isGzip(store: Store, path: string): Promise<boolean> {
  await using source = await store.open(path);
  const [a, b] = await readRange(source, 0, Math.min(source.size, 2));
  return a === 0x1f && b === 0x8b;
}

/** @returns an open temporary file that is already deleted from its folder; its space is freed when it is closed */
async function inflate(source: ByteSource, path: string, options: GunzipOptions): Promise<InflatedFile> {
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
        limitBytes(maxBytes, Math.max(SMALL_BYTES, source.size * MAX_RATIO), path),
        async (blocks) => {
          for await (const block of blocks) writeAll(descriptor, block);
        },
        signal,
      );
      const inflated = { descriptor };
      abandoned.register(inflated, descriptor);
      return inflated;
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

function limitBytes(maxBytes: number, maxRatioBytes: number, file: string): Transform {
  let bytes = 0;
  return new Transform({
    transform(block: Uint8Array, _encoding, done) {
      bytes += block.byteLength;
      if (bytes <= Math.min(maxBytes, maxRatioBytes)) return done(null, block);
      const message =
        bytes > maxRatioBytes
          ? `the gzip inflates to more than ${MAX_RATIO} times its size`
          : `the gzip inflates to more than ${maxBytes} bytes, the space for temporary files`;
      const next = "inflate it yourself, with `gunzip`, where there is space, or set TMPDIR to a larger disk";
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

/** One write may write fewer bytes than it is given. */
function writeAll(descriptor: number, block: Uint8Array): void {
  for (let done = 0; done < block.byteLength; ) done += writeSync(descriptor, block, done);
}

/** Sources share the file, so closing a source does not close it. */
function sourceOf(inflated: InflatedFile, url: string, file: string, size: number): ByteSource {
  return {
    url,
    size,
    async readInto(target, offset, signal) {
      if (offset + target.byteLength > size) {
        const message = `the inflated file has ${size} bytes; ${target.byteLength} were requested from byte ${offset}`;
        throw new IsologitError("TRUNCATED", message, { file, offset: size });
      }
      for (let done = 0; done < target.byteLength; ) {
        if (signal?.aborted) throw new IsologitError("INTERRUPTED", "stopped on request", { file });
        const count = Math.min(target.byteLength - done, 64 * BLOCK_BYTES);
        try {
          const { bytesRead } = await readAt(inflated.descriptor, target, done, count, offset + done);
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
