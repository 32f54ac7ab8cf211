/**
 * The content of a pickle as plain data. A pickle is a program that builds objects; here it builds only these values. An
 * object that would need other code becomes an `opaque` value with a name, which is an error only if its value is needed.
 * Values may share parts and may even contain themselves.
 */
import type { DType, Shape } from "../../../src/core/dtype.ts";
import { type ErrorLocation, IsologitError } from "../../../src/core/errors.ts";

/** An int beyond 2^53 is a bigint; a float is a number, like a smaller int. */
export type PickleValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | PickleSequence<"list">
  | PickleSequence<"tuple">
  | PickleSequence<"set">
  | PickleDict
  | PickleGlobal
  | PickleRecord
  | PickleStorage
  | PickleTensor
  | PickleOpaque;

interface PickleSequence<Kind extends "list" | "tuple" | "set"> {
  readonly kind: Kind;
  readonly items: readonly PickleValue[];
}

/** A key and its value. */
export type PickleEntry = readonly [PickleValue, PickleValue];

/**
 * Also an OrderedDict. Entries are a list, not a Map: a hostile file can choose numbers that all fall into one bucket of a
 * Map, which takes hours. `byText` makes a Map of text keys, whose hashes cannot be predicted.
 */
interface PickleDict {
  readonly kind: "dict";
  readonly entries: readonly PickleEntry[];
}

/** A listed name that is a constant, such as `torch.bfloat16`. */
interface PickleGlobal {
  readonly kind: "global";
  /** dotted */
  readonly name: string;
}

/** An object of a listed class, or the result of a listed function: its name and its arguments. */
export interface PickleRecord {
  readonly kind: "record";
  /** dotted name of the class */
  readonly name: string;
  readonly args: readonly PickleValue[];
  /** attributes; a Map, so that the name `__proto__` is safe */
  readonly fields: ReadonlyMap<string, PickleValue>;
  /** a state that is not a dict of attributes, such as the 5-tuple of TensorProperties */
  readonly state?: PickleValue;
  /** items, for classes that are lists or dicts */
  readonly items: readonly PickleValue[];
  readonly entries: readonly PickleEntry[];
}

/** Bytes beside the pickle, under `key`. */
export interface PickleStorage {
  readonly kind: "storage";
  readonly key: string;
  /** null if the storage is untyped: then `count` is in bytes */
  readonly dtype: DType | null;
  readonly count: number;
}

/** A strided view of a storage, checked to lie inside it. */
export interface PickleTensor {
  readonly kind: "tensor";
  readonly storage: PickleStorage;
  readonly dtype: DType;
  readonly shape: Shape;
  /** elements */
  readonly strides: Shape;
  /** elements from the start of the storage */
  readonly offset: number;
}

export interface PickleOpaque {
  readonly kind: "opaque";
  /** dotted, as `os.system` */
  readonly name: string;
  /** offset of the name's use, bytes from the start of the file */
  readonly offset: number;
}

type Kinds = Exclude<PickleValue, null | boolean | number | bigint | string | Uint8Array>;

/** `value` if it has this kind. @throws PICKLE_REFUSED if it is opaque, PICKLE_INVALID if it is any other value */
export function expectKind<K extends Kinds["kind"]>(
  value: PickleValue | undefined,
  kind: K,
  what: string,
  at: ErrorLocation,
): Extract<Kinds, { kind: K }> {
  if (isKind(value, kind)) return value;
  throw unexpectedValueError(value, `a ${kind}`, what, at);
}

export function isKind<K extends Kinds["kind"]>(
  value: PickleValue | undefined,
  kind: K,
): value is Extract<Kinds, { kind: K }> {
  // bytes have no kind; `in` would be slower, and this runs for every value
  return typeof value === "object" && value !== null && (value as { kind?: unknown }).kind === kind;
}

/** @throws like `expectKind` */
export function expectText(value: PickleValue | undefined, what: string, at: ErrorLocation): string {
  if (typeof value === "string") return value;
  throw unexpectedValueError(value, "text", what, at);
}

/** A size or an offset. @throws like `expectKind`; SIZE_UNSAFE for an int that is negative or beyond 2^53 */
export function expectSize(value: PickleValue | undefined, what: string, at: ErrorLocation): number {
  if (typeof value !== "number" && typeof value !== "bigint")
    throw unexpectedValueError(value, "an int", what, at);
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  throw new IsologitError("SIZE_UNSAFE", `${what} is ${value}, expected a size from 0 to 2^53`, at);
}

/** Largest number of dimensions; torch and numpy have the same limit. */
const MAX_RANK = 64;

/** The sizes of a torch.Size, a tuple or a list. @throws like `expectSize`; LIMIT_EXCEEDED for more than 64 */
export function expectShape(value: PickleValue | undefined, what: string, at: ErrorLocation): Shape {
  if (!isKind(value, "tuple") && !isKind(value, "list"))
    throw unexpectedValueError(value, "a tuple of sizes", what, at);
  if (value.items.length > MAX_RANK) {
    const message = `${what} has ${value.items.length} dimensions; at most ${MAX_RANK} are read`;
    throw new IsologitError("LIMIT_EXCEEDED", message, at);
  }
  return value.items.map((item) => expectSize(item, what, at));
}

/** The entries of a dict whose keys are all text. @throws like `expectKind`; DUPLICATE_NAME for a key that appears twice */
export function entriesByText(
  value: PickleValue | undefined,
  what: string,
  at: ErrorLocation,
): Map<string, PickleValue> {
  const map = new Map<string, PickleValue>();
  for (const [key, held] of expectKind(value, "dict", what, at).entries) {
    const text = expectText(key, `a key of ${what}`, at);
    if (map.has(text)) throw new IsologitError("DUPLICATE_NAME", `${what} has ${quoteText(text)} twice`, at);
    map.set(text, held);
  }
  return map;
}

/** A record of one of the classes `names`. @throws like `expectKind` */
export function expectRecord(
  value: PickleValue | undefined,
  names: readonly string[],
  what: string,
  at: ErrorLocation,
): PickleRecord {
  const record = expectKind(value, "record", what, at);
  if (names.includes(record.name)) return record;
  throw unexpectedValueError(value, names.join(" or "), what, at);
}

/** The error for a value where `wanted` was expected: PICKLE_REFUSED if it is opaque, else PICKLE_INVALID. */
export function unexpectedValueError(
  value: PickleValue | undefined,
  wanted: string,
  what: string,
  at: ErrorLocation,
): IsologitError {
  if (isKind(value, "opaque")) {
    const message = `${what} needs the code ${value.name}, which is never run; expected ${wanted}`;
    return new IsologitError("PICKLE_REFUSED", message, { ...at, offset: value.offset });
  }
  return new IsologitError("PICKLE_INVALID", `${what} is ${describeValue(value)}, expected ${wanted}`, at);
}

/** Untrusted text for a message: quoted, with escaped control characters, and shortened. */
export function quoteText(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text);
}

/** The kind of a value in a few words, for messages. */
export function describeValue(value: PickleValue | undefined): string {
  if (value === undefined) return "missing";
  if (value === null) return "None";
  if (value instanceof Uint8Array) return "bytes";
  if (typeof value !== "object") return typeof value === "string" ? "text" : `a ${typeof value}`;
  switch (value.kind) {
    case "global":
      return value.name;
    case "record":
      return `a ${value.name}`;
    case "opaque":
      return `the result of ${value.name}`;
    default:
      return `a ${value.kind}`;
  }
}
