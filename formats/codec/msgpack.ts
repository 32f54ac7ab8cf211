/**
 * The plain part of MessagePack: maps with string keys, arrays, strings, integers from 0 to 2^53 - 1.
 *
 * A library decodes, after a pass over the bytes that checks them and builds nothing. Without the check the library would
 * allocate an array of 2^32 elements for five bytes, recurse as deep as the input, run extensions, and replace text that is
 * not UTF-8.
 */
import { isUtf8 } from "node:buffer";
import { Packr } from "msgpackr/pack"; // without the native part, which takes longer to load than all strings here to decode
import { type ErrorLocation, IsologitError } from "../../src/core/errors.ts";

export type DecodedValue =
  | number
  | string
  | readonly DecodedValue[]
  | { readonly [key: string]: DecodedValue };

interface MsgpackLimits {
  /** levels of containers */
  readonly depth: number;
  /** elements of one array, pairs of one map */
  readonly items: number;
  /** all values, with keys */
  readonly values: number;
}

/** No records, no extensions, the shortest map heads; 64-bit integers come back as numbers. */
const packr = new Packr({
  useRecords: false,
  variableMapSize: true,
  mapsAsObjects: true,
  int64AsType: "number",
});

/** A value that can be encoded; integers must go through `encodableInteger` first. */
export type EncodableValue =
  | number
  | bigint
  | string
  | readonly EncodableValue[]
  | {
      readonly [key: string]: EncodableValue;
    };

/** The library encodes numbers from 2^32 on as floats, and bigints as int 64. */
export function encodableInteger(value: number): number | bigint {
  return value < 2 ** 32 ? value : BigInt(value);
}

/** The bytes of a value. Keys keep their order. Every form is the shortest, except that integers from 2^32 on are int 64. */
export function encodeMsgpack(value: EncodableValue): Uint8Array {
  return Uint8Array.from(packr.pack(value)); // a copy: the library reuses its buffer
}

/**
 * Decodes a value of this plain part.
 *
 * @param at where the bytes begin: `at.offset` is added to the offsets of errors
 * @throws HEADER_INVALID, LIMIT_EXCEEDED, SIZE_UNSAFE, NAME_INVALID (a string that is not UTF-8)
 */
export function decodeMsgpack(bytes: Uint8Array, limits: MsgpackLimits, at: ErrorLocation): DecodedValue {
  scan(bytes, limits, at);
  try {
    return packr.unpack(bytes) as DecodedValue; // the scan accepts only such values
  } catch (cause) {
    throw new IsologitError("HEADER_INVALID", `not MessagePack: ${(cause as Error).message}`, at, { cause });
  }
}

type Token =
  | { readonly kind: "integer"; readonly bytes: number }
  | { readonly kind: "string"; readonly bytes: number; readonly length: number }
  | { readonly kind: "array" | "map"; readonly bytes: number; readonly length: number };

function scan(bytes: Uint8Array, limits: MsgpackLimits, at: ErrorLocation): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const open: { left: number; readonly map: boolean }[] = []; // number of missing values in each open container
  let position = 0;
  let values = 0;
  const fail = (
    code: "HEADER_INVALID" | "LIMIT_EXCEEDED" | "NAME_INVALID" | "SIZE_UNSAFE",
    message: string,
  ) => new IsologitError(code, message, { ...at, offset: (at.offset ?? 0) + position });

  do {
    const inside = open.at(-1);
    const isKey = inside?.map === true && inside.left % 2 === 0;
    if (++values > limits.values) throw fail("LIMIT_EXCEEDED", `more than ${limits.values} values`);
    const token = tokenAt(view, position);
    if (token === "cut") throw fail("HEADER_INVALID", "the text ends inside a value");
    if (token === "unsafe") throw fail("SIZE_UNSAFE", "an integer is negative or beyond 2^53");
    if (token === "other") {
      const type = bytes[position]!.toString(16);
      throw fail(
        "HEADER_INVALID",
        `a value of type 0x${type}: only maps, arrays, strings and sizes are allowed`,
      );
    }
    if (isKey && token.kind !== "string") throw fail("HEADER_INVALID", `a key is an ${token.kind}`);
    const left = bytes.byteLength - position - token.bytes;
    if (inside !== undefined) inside.left--;
    if (token.kind === "string") {
      if (token.length > left)
        throw fail("HEADER_INVALID", `a text of ${token.length} bytes, but only ${left} bytes are left`);
      const start = position + token.bytes;
      if (!isUtf8(bytes.subarray(start, start + token.length)))
        throw fail("NAME_INVALID", "text is not UTF-8");
      position = start + token.length;
    } else if (token.kind === "integer") {
      position += token.bytes;
    } else {
      if (token.length > limits.items) {
        throw fail("LIMIT_EXCEEDED", `${token.length} items, expected at most ${limits.items}`);
      }
      const map = token.kind === "map";
      const wanted = token.length * (map ? 2 : 1);
      if (wanted > left)
        throw fail("HEADER_INVALID", `${wanted} more values, but only ${left} bytes are left`);
      open.push({ left: wanted, map });
      if (open.length > limits.depth) throw fail("LIMIT_EXCEEDED", `nested deeper than ${limits.depth}`);
      position += token.bytes;
    }
    while (open.at(-1)?.left === 0) open.pop();
  } while (open.length > 0);
  if (position < bytes.byteLength) throw fail("HEADER_INVALID", "bytes follow the value");
}

function tokenAt(view: DataView, position: number): Token | "cut" | "unsafe" | "other" {
  const left = view.byteLength - position;
  if (left < 1) return "cut";
  const type = view.getUint8(position);
  if (type < 0x80) return { kind: "integer", bytes: 1 };
  if (type < 0x90) return { kind: "map", bytes: 1, length: type & 15 };
  if (type < 0xa0) return { kind: "array", bytes: 1, length: type & 15 };
  if (type < 0xc0) return { kind: "string", bytes: 1, length: type & 31 };
  const form = FORMS[type];
  if (form === undefined) return "other";
  const bytes = 1 + form.width;
  if (left < bytes) return "cut";
  if (form.width === 8) {
    // A negative int 64 is beyond 2^63 as unsigned.
    const safe = view.getBigUint64(position + 1) <= Number.MAX_SAFE_INTEGER;
    return safe ? { kind: "integer", bytes } : "unsafe";
  }
  if (form.kind === "integer") return { kind: "integer", bytes };
  const length =
    form.width === 1
      ? view.getUint8(position + 1)
      : form.width === 2
        ? view.getUint16(position + 1)
        : view.getUint32(position + 1);
  return { kind: form.kind, bytes, length };
}

/** Types with a number after their first byte, by that byte; `width` is the size of the number, bytes. */
const FORMS: Readonly<Record<number, { readonly kind: Token["kind"]; readonly width: 1 | 2 | 4 | 8 }>> = {
  204: { kind: "integer", width: 1 },
  205: { kind: "integer", width: 2 },
  206: { kind: "integer", width: 4 },
  207: { kind: "integer", width: 8 },
  211: { kind: "integer", width: 8 },
  217: { kind: "string", width: 1 },
  218: { kind: "string", width: 2 },
  219: { kind: "string", width: 4 },
  220: { kind: "array", width: 2 },
  221: { kind: "array", width: 4 },
  222: { kind: "map", width: 2 },
  223: { kind: "map", width: 4 },
};
