/** A part of a source as a source, bytes as a source, and a source with its two ends in memory. */
import { IsologitError } from "../../src/core/errors.ts";
import { type ByteSource, readRange } from "../../src/core/io.ts";

/** Bytes at hand as a source. @param url its name in messages */
export function memorySource(bytes: Uint8Array, url: string): ByteSource {
  return {
    url,
    size: bytes.byteLength,
    async readInto(target, offset) {
      if (offset + target.byteLength > bytes.byteLength)
        throw new IsologitError("TRUNCATED", `${target.byteLength} bytes were requested from byte ${offset}`);
      target.set(bytes.subarray(offset, offset + target.byteLength));
    },
    async [Symbol.asyncDispose]() {},
  };
}

/**
 * `size` bytes of `source` from `offset` on. Closing the part does not close `source`, which belongs to its opener.
 *
 * @param file name of the whole file in errors; offsets in errors of reading count from the start of the part
 * @throws SPAN_INVALID when the part is not inside the source
 */
export function sliceOf(source: ByteSource, offset: number, size: number, file: string): ByteSource {
  if (offset < 0 || size < 0 || offset + size > source.size) {
    const message = `bytes ${offset} to ${offset + size} are not inside a file of ${source.size} bytes`;
    throw new IsologitError("SPAN_INVALID", message, { file, offset });
  }
  return {
    url: source.url,
    size,
    async readInto(target, from, signal) {
      if (from + target.byteLength > size) {
        const message = `${target.byteLength} bytes were requested from byte ${from} of a part of ${size} bytes`;
        throw new IsologitError("TRUNCATED", message, { file, offset: size });
      }
      await source.readInto(target, offset + from, signal);
    },
    async [Symbol.asyncDispose]() {},
  };
}

/**
 * `source` with its first and last `bytes` in memory. An archive has its directory at the end and its pickle at the start;
 * this saves some five reads for each archive, and a checkpoint may have 100,000 archives.
 */
export async function holdEnds(source: ByteSource, bytes: number): Promise<ByteSource> {
  const short = source.size <= 2 * bytes;
  const head = await readRange(source, 0, short ? source.size : bytes);
  const tailAt = short ? source.size : source.size - bytes;
  const tail = await readRange(source, tailAt, source.size - tailAt);
  return {
    url: source.url,
    size: source.size,
    async readInto(target, from, signal) {
      const end = from + target.byteLength;
      if (end <= head.byteLength) target.set(head.subarray(from, end));
      else if (from >= tailAt && end <= source.size) target.set(tail.subarray(from - tailAt, end - tailAt));
      else await source.readInto(target, from, signal);
    },
    async [Symbol.asyncDispose]() {},
  };
}
