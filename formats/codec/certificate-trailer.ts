/** The optional trailer after the last byte of a checkpoint in one file: `[certificate][its length, u64][magic, 8 bytes]`. */
import type { Span } from "../../src/core/checkpoint.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { type ByteSource, readRange } from "../../src/core/io.ts";

const TRAILER_MAGIC = new TextEncoder().encode("ISOCERT\n");
const TRAILER_BYTES = 16;
/** A certificate contains a list of tensors and a fingerprint of the logits: a few MiB for the largest known model. */
export const MAX_CERTIFICATE_BYTES = 64 * 1024 * 1024;

/**
 * The span of the certificate; undefined if the file ends with its sealed part.
 *
 * @throws TRAILING_BYTES, LIMIT_EXCEEDED
 */
export async function trailerOf(
  source: ByteSource,
  dataEnd: number,
  file: string,
): Promise<Span | undefined> {
  const extra = source.size - dataEnd;
  if (extra === 0) return undefined;
  const refuse = (code: "TRAILING_BYTES" | "LIMIT_EXCEEDED", message: string) =>
    new IsologitError(code, message, { file, offset: dataEnd });
  if (extra < TRAILER_BYTES) throw refuse("TRAILING_BYTES", `${extra} bytes follow the sealed part`);
  const trailer = await readRange(source, source.size - TRAILER_BYTES, TRAILER_BYTES);
  const length = new DataView(trailer.buffer).getBigUint64(0, true);
  if (Buffer.compare(trailer.subarray(8), TRAILER_MAGIC) !== 0 || length !== BigInt(extra - TRAILER_BYTES)) {
    throw refuse("TRAILING_BYTES", `${extra} bytes follow the sealed part and are not a certificate`);
  }
  if (length > MAX_CERTIFICATE_BYTES) {
    throw refuse(
      "LIMIT_EXCEEDED",
      `a certificate of ${length} bytes, expected at most ${MAX_CERTIFICATE_BYTES}`,
    );
  }
  return { file, offset: dataEnd, size: Number(length) };
}

/** Whether the file ends as a trailer does. */
export async function endsWithTrailer(source: ByteSource): Promise<boolean> {
  if (source.size < TRAILER_MAGIC.byteLength) return false;
  const size = TRAILER_MAGIC.byteLength;
  return Buffer.compare(await readRange(source, source.size - size, size), TRAILER_MAGIC) === 0;
}

/** The bytes to append for a certificate. */
export function trailerBytes(certificate: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(certificate.byteLength + TRAILER_BYTES);
  bytes.set(certificate);
  new DataView(bytes.buffer).setBigUint64(certificate.byteLength, BigInt(certificate.byteLength), true);
  bytes.set(TRAILER_MAGIC, certificate.byteLength + 8);
  return bytes;
}
