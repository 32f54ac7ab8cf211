/** Reading a packed file through, once, against its own digests. */
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { IsologitError } from "../../src/core/errors.ts";
import type { ByteSource } from "../../src/core/io.ts";
import { CHUNK_BYTES } from "../define.ts";
import type { Front } from "./packed-front.ts";

/** A run of the sealed part, and what its bytes must hash to. */
interface Run {
  readonly what: string;
  readonly tensor?: string;
  readonly offset: number;
  readonly size: number;
  readonly sha256: string;
  /** of each chunk; absent for side files */
  readonly crc32?: readonly number[];
}

/**
 * Every fault of the bytes after the front, in file order: a chunk whose checksum differs, a digest that does,
 * padding that is not zero. The front itself was checked when it was read.
 *
 * Each byte is read once; one buffer of a chunk is held.
 */
export async function* damageOf(
  source: ByteSource,
  front: Front,
  file: string,
  signal?: AbortSignal,
): AsyncGenerator<IsologitError> {
  const buffer = new Uint8Array(Math.min(CHUNK_BYTES, front.head.dataEnd));
  const read = async (offset: number, size: number): Promise<Uint8Array> => {
    const bytes = buffer.subarray(0, size);
    await source.readInto(bytes, offset, signal);
    return bytes;
  };
  let end = front.head.seals.offset + front.head.seals.size;
  for (const run of runsOf(front)) {
    const gap = run.offset - end;
    const dirty = gap === 0 ? -1 : (await read(end, gap)).findIndex((byte) => byte !== 0);
    if (dirty !== -1) {
      yield new IsologitError("PADDING_INVALID", `a byte of padding before ${run.what} is not zero`, {
        file,
        offset: end + dirty,
      });
    }
    yield* damageOfRun(run, read, file);
    end = run.offset + run.size;
  }
}

async function* damageOfRun(
  run: Run,
  read: (offset: number, size: number) => Promise<Uint8Array>,
  file: string,
): AsyncGenerator<IsologitError> {
  const at = { file, ...(run.tensor === undefined ? {} : { tensor: run.tensor }) };
  const whole = createHash("sha256");
  let located = false;
  for (let from = 0, chunk = 0; from < run.size; from += CHUNK_BYTES, chunk++) {
    const size = Math.min(CHUNK_BYTES, run.size - from);
    const bytes = await read(run.offset + from, size);
    whole.update(bytes);
    if (run.crc32 === undefined || crc32(bytes) === run.crc32[chunk]) continue;
    located = true;
    const message = `${size} bytes of ${run.what} are not those that were written`;
    yield new IsologitError("DIGEST_MISMATCH", message, { ...at, offset: run.offset + from });
  }
  if (!located && whole.digest("hex") !== run.sha256) {
    const message = `${run.what} is not what was written: its SHA-256 differs`;
    yield new IsologitError("DIGEST_MISMATCH", message, { ...at, offset: run.offset });
  }
}

function* runsOf({ index, digests }: Front): Generator<Run> {
  for (const { path, offset, size } of index.entries) {
    yield { what: path, offset, size, sha256: digests.entries.get(path)! };
  }
  for (const { path, offset, size } of index.shards) {
    yield { what: `the header of ${path}`, offset, size, sha256: digests.shards.get(path)! };
  }
  for (const { name, offset, size } of index.tensors) {
    const { sha256, crc32 } = digests.tensors.get(name)!;
    yield { what: name, tensor: name, offset, size, sha256, crc32 };
  }
}
