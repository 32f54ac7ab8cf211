/** The keys of a GGUF header, with the types that they have in the file. Long values are passed over, and their places kept. */
import type { TypedValue } from "../../../src/core/checkpoint.ts";
import type { HeaderInput } from "./input.ts";
import { VALUE_TYPES } from "./types.ts";

/** The longest keys that real files have are below 100 bytes; the specification allows this many. */
const MAX_KEY_BYTES = 65_535;
/** Files have 20 to 60 keys. */
const MAX_KEYS = 65_536;
/** A chat template or a vocabulary is larger; a list with a number for each of 512 layers is smaller. */
const MAX_VALUE_BYTES = 16 * 1024;
/** All names of keys together. */
const MAX_NAMES_BYTES = 4 * 1024 * 1024;
/** All values together that are kept. */
const MAX_KEPT_BYTES = 4 * 1024 * 1024;
/** A key is a length, one byte, a type and a value of one byte at least. */
export const MIN_KEY_BYTES = 14;

type Scalar = number | bigint | boolean | string;
type ScalarType = Exclude<(typeof VALUE_TYPES)[number]["name"], "array">;

/**
 * All keys, in the order of the file.
 *
 * @throws LIMIT_EXCEEDED, TRUNCATED, NAME_INVALID, DUPLICATE_NAME, HEADER_INVALID; each names the key
 */
export async function readMetadata(input: HeaderInput, count: bigint): Promise<readonly TypedValue[]> {
  const keys = input.claim(count, MIN_KEY_BYTES, "keys");
  if (keys > MAX_KEYS) throw input.fail("LIMIT_EXCEEDED", `${keys} keys; at most ${MAX_KEYS} are read`);
  const entries = new Map<string, TypedValue>();
  let budget = MAX_KEPT_BYTES;
  let names = 0;
  for (let i = 0; i < keys; i++) {
    const at = input.at;
    const key = await input.name(`the name of key ${i}`, MAX_KEY_BYTES);
    names += key.length;
    if (names > MAX_NAMES_BYTES)
      throw input.fail("LIMIT_EXCEEDED", `names of keys have more than ${MAX_NAMES_BYTES} characters`);
    if (entries.has(key)) throw input.fail("DUPLICATE_NAME", `the key ${key} is there twice`, { offset: at });
    const entry = await readValue(input, key, Math.min(budget, MAX_VALUE_BYTES));
    if (entry.value !== undefined) budget -= entry.span.size;
    entries.set(key, entry);
  }
  return [...entries.values()];
}

async function readValue(input: HeaderInput, key: string, maxBytes: number): Promise<TypedValue> {
  const type = await readType(input, key);
  if (type.name === "array") return readArray(input, key, maxBytes);
  if (type.name === "string") {
    const size = await input.stringLength(`the value of ${key}`);
    const span = input.span(size);
    const isKept = size <= maxBytes;
    if (isKept) return { key, type: "string", count: size, span, value: await readText(input, size) };
    input.skip(size);
    return { key, type: "string", count: size, span };
  }
  const span = input.span(type.bytes);
  if (!input.has(type.bytes)) await input.fill(type.bytes);
  return { key, type: type.name, span, value: readScalar(input, key, type.name) };
}

async function readType(input: HeaderInput, key: string): Promise<(typeof VALUE_TYPES)[number]> {
  if (!input.has(4)) await input.fill(4);
  const offset = input.at;
  const number = input.u32();
  const type = VALUE_TYPES[number];
  if (type !== undefined) return type;
  throw input.fail("HEADER_INVALID", `the key ${key} has a value of the unknown type ${number}`, { offset });
}

/** Lists of lists are refused, as llama.cpp does, so that no file decides how deep a reader recurses. */
async function readArray(input: HeaderInput, key: string, maxBytes: number): Promise<TypedValue> {
  const type = await readType(input, key);
  if (type.name === "array")
    throw input.fail("HEADER_INVALID", `the key ${key} has a list of lists as its value`);
  if (!input.has(8)) await input.fill(8);
  const what = `elements of ${key}`;
  const count = input.claim(input.u64(), type.name === "string" ? 8 : type.bytes, what);
  const offset = input.at;
  const value =
    type.name === "string"
      ? await readStrings(input, key, count, maxBytes)
      : await readScalars(input, key, count, type, maxBytes);
  const span = { file: input.file, offset, size: input.at - offset };
  return { key, type: `${type.name}[]`, count, span, ...(value !== undefined && { value }) };
}

async function readScalars(
  input: HeaderInput,
  key: string,
  count: number,
  type: { readonly name: ScalarType; readonly bytes: number },
  maxBytes: number,
): Promise<readonly Scalar[] | undefined> {
  const kept = count * type.bytes <= maxBytes;
  // Truth values have bits that are not allowed: they are read even if they are not kept.
  if (!kept && type.name !== "bool") {
    input.skip(count * type.bytes);
    return undefined;
  }
  const values: Scalar[] = [];
  for (let i = 0; i < count; i++) {
    if (!input.has(type.bytes)) await input.fill(type.bytes);
    const value = readScalar(input, key, type.name);
    if (kept) values.push(value);
  }
  return kept ? values : undefined;
}

async function readStrings(
  input: HeaderInput,
  key: string,
  count: number,
  maxBytes: number,
): Promise<readonly string[] | undefined> {
  const what = `an element of ${key}`;
  const values: string[] = [];
  const start = input.at;
  for (let i = 0; i < count; i++) {
    // A vocabulary has 100,000s of strings: this loop waits only where a window ends.
    const size = input.has(8) ? input.claim(input.u64(), 1, what) : await input.stringLength(what);
    if (input.at + size - start > maxBytes) input.skip(size);
    else values.push(await readText(input, size));
  }
  return input.at - start <= maxBytes ? values : undefined;
}

/** Values are for display: bytes that are not UTF-8 become U+FFFD. */
async function readText(input: HeaderInput, size: number): Promise<string> {
  if (!input.has(size)) await input.fill(size);
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(input.take(size));
}

function readScalar(input: HeaderInput, key: string, type: ScalarType): Scalar {
  switch (type) {
    case "u8":
      return input.u8();
    case "i8":
      return (input.u8() << 24) >> 24;
    case "u16":
      return input.u16();
    case "i16":
      return (input.u16() << 16) >> 16;
    case "u32":
      return input.u32();
    case "i32":
      return input.u32() | 0;
    case "f32":
      return input.f32();
    case "f64":
      return input.f64();
    case "u64":
      return safeNumber(input.u64());
    case "i64":
      return safeNumber(BigInt.asIntN(64, input.u64()));
    case "bool": {
      const offset = input.at;
      const byte = input.u8();
      if (byte <= 1) return byte === 1;
      throw input.fail(
        "HEADER_INVALID",
        `the key ${key} has the truth value ${byte}; only 0 and 1 are valid`,
        {
          offset,
        },
      );
    }
    case "string":
      throw input.fail("INTERNAL", "a string is not a scalar");
    default:
      return type satisfies never;
  }
}

/** A `number` where it is exact. */
function safeNumber(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
