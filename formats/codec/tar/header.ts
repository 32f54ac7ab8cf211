/** Headers of tar: one block of 512 bytes for each member, and pax records, `LENGTH KEY=VALUE` on a line. (POSIX.1-2017, pax) */
import { type ErrorLocation, IsologitError } from "../../../src/core/errors.ts";

export const BLOCK = 512;

export interface TarHeader {
  readonly name: string;
  /** size of the content, bytes; it is padded to whole blocks */
  readonly size: number;
  /** "0" or "": a file; "5": a folder; others as in POSIX and GNU */
  readonly type: string;
}

/** A block of zeros is the end. @throws ARCHIVE_INVALID, SIZE_UNSAFE */
export function parseTarHeader(block: Uint8Array, at: ErrorLocation): TarHeader | "end" {
  const bytes = Buffer.from(block.buffer, block.byteOffset, BLOCK);
  if (bytes.every((byte) => byte === 0)) return "end";
  const stated = numberAt(bytes, 148, 8, at);
  // In the sum, the field itself counts as spaces. Some old writers added signed bytes.
  const sum = (signed: boolean) =>
    bytes.reduce(
      (all, byte, i) => all + (i >= 148 && i < 156 ? 0x20 : signed && byte > 127 ? byte - 256 : byte),
      0,
    );
  if (sum(false) !== stated && sum(true) !== stated) {
    throw new IsologitError("ARCHIVE_INVALID", "a header of the tar archive does not have its checksum", at);
  }
  const name = textAt(bytes, 0, 100);
  // POSIX stores the start of a long name here; GNU has other fields here
  const prefix = bytes.toString("latin1", 257, 263) === "ustar\0" ? textAt(bytes, 345, 155) : "";
  return {
    name: prefix === "" ? name : `${prefix}/${name}`,
    size: numberAt(bytes, 124, 12, at),
    type: textAt(bytes, 156, 1),
  };
}

function textAt(bytes: Buffer, offset: number, length: number): string {
  const end = bytes.subarray(offset, offset + length).indexOf(0);
  return bytes.toString("utf8", offset, offset + (end < 0 ? length : end));
}

/** Octal digits, or, from 8 GiB on, a big-endian number after a set top bit. */
function numberAt(bytes: Buffer, offset: number, length: number, at: ErrorLocation): number {
  if ((bytes[offset]! & 0x80) !== 0) {
    const value =
      BigInt(`0x${bytes.toString("hex", offset, offset + length)}`) ^ (1n << BigInt(8 * length - 1));
    if (value <= Number.MAX_SAFE_INTEGER) return Number(value);
    throw new IsologitError("SIZE_UNSAFE", `a header of the tar archive states ${value} bytes`, at);
  }
  const digits = bytes
    .toString("latin1", offset, offset + length)
    .replace(/[\0 ]+$/, "")
    .trimStart();
  if (/^[0-7]*$/.test(digits)) return Number.parseInt(`0${digits}`, 8);
  throw new IsologitError("ARCHIVE_INVALID", "a number in a header of the tar archive is not octal", at);
}

/** Path and size of the next member in pax records. @throws ARCHIVE_INVALID, SIZE_UNSAFE, UNSUPPORTED for a sparse file */
export function parsePax(bytes: Uint8Array, at: ErrorLocation): { path?: string; size?: number } {
  const text = Buffer.from(bytes);
  const fields: { path?: string; size?: number } = {};
  for (let start = 0; start < text.byteLength; ) {
    const [, length, key] =
      /^(\d{1,7}) ([^=\n]{1,100})=/.exec(text.toString("utf8", start, start + 256)) ?? [];
    const end = start + Number(length);
    if (key === undefined || end > text.byteLength || text[end - 1] !== 0x0a) {
      throw new IsologitError("ARCHIVE_INVALID", "a pax record of the tar archive is damaged", at);
    }
    const value = text.toString("utf8", start + length!.length + 1 + Buffer.byteLength(key) + 1, end - 1);
    if (key.startsWith("GNU.sparse")) {
      throw new IsologitError("UNSUPPORTED", "a member is stored as a sparse file", at, {
        next: "pack the folder again without `--sparse`",
      });
    }
    if (key === "path") fields.path = value;
    if (key === "size") {
      fields.size = Number(value);
      if (!/^\d+$/.test(value) || !Number.isSafeInteger(fields.size)) {
        throw new IsologitError("SIZE_UNSAFE", `a pax record states ${JSON.stringify(value)} bytes`, at);
      }
    }
    start = end;
  }
  return fields;
}
