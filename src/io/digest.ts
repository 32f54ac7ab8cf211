/** SHA-256 of a file, except for some spans. */
import { createHash } from "node:crypto";
import type { Span } from "../core/checkpoint.ts";
import type { ByteSource } from "../core/io.ts";

/** Bytes read at a time. */
const CHUNK_BYTES = 4 * 1024 * 1024;

/**
 * SHA-256 of a file, except for some spans.
 *
 * @param end the digest covers the bytes before this offset
 * @param spans the spans to leave out, sorted by offset
 */
export async function digestExcept(
  source: ByteSource,
  end: number,
  spans: readonly Span[],
  signal: AbortSignal | undefined,
): Promise<string> {
  const hash = createHash("sha256");
  let at = 0;
  for (const { offset, size } of [...spans, { offset: end, size: 0 }]) {
    for (; at < offset; at = Math.min(offset, at + CHUNK_BYTES)) {
      const bytes = new Uint8Array(Math.min(CHUNK_BYTES, offset - at));
      await source.readInto(bytes, at, signal);
      hash.update(bytes);
    }
    at = Math.max(at, offset + size);
  }
  return hash.digest("hex");
}
