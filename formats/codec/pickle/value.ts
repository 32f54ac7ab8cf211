/**
 * What a pickle says, as plain data. A pickle is a program that builds objects; here it builds only these, and
 * whatever it would have built with code that is not ours stays a named, inert `opaque`, an error where its
 * value is asked for and nowhere else. Values may share parts and even contain themselves.
 */
import type { DType, Shape } from "../../../src/core/dtype.ts";
import { type ErrorLocation, IsologitError } from "../../../src/core/errors.ts";

/** An int beyond 2^53 is a bigint; a float is a number and cannot be told from an int. */
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
 * Also an OrderedDict. Entries as they came, and no Map: numbers can be chosen such that all fall into one bucket
 * of it, which takes hours. `byText` makes one of text keys, whose hashes nobody can foresee.
 */
interface PickleDict {
  readonly kind: "dict";
  readonly entries: readonly PickleEntry[];
}

/** A listed name that stands for itself, as `torch.bfloat16` does. */
interface PickleGlobal {
  readonly kind: "global";
  /** dotted */
  readonly name: string;
}

/** An object of a listed class, or what a listed function would have returned: the name, and what it was given. */
export interface PickleRecord {
  readonly kind: "record";
  /** of the class, dotted */
  readonly name: string;
  readonly args: readonly PickleValue[];
  /** attributes; a Map, so that `__proto__` is a name like any other */
  readonly fields: ReadonlyMap<string, PickleValue>;
  /** a state that is no dict of attributes, as the 5-tuple of TensorProperties */
  readonly state?: PickleValue;
  /** of classes that are lists or dicts */
  readonly items: readonly PickleValue[];
  readonly entries: readonly PickleEntry[];
}

/** Bytes that lie beside the pickle, under `key`. */
export interface PickleStorage {
  readonly kind: "storage";
  readonly key: string;
  /** null where the storage is untyped: then `count` counts bytes */
  readonly dtype: DType | null;
  readonly count: number;
}

/** A strided view of a storage; it lies inside it and touches no element twice by stride 0. */
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
  /** where the name is used, bytes from the start of the file */
  readonly offset: number;
}

type Kinds = Exclude<PickleValue, null | boolean | number | bigint | string | Uint8Array>;

/** `value` as one of `kind`. @throws PICKLE_REFUSED where it is opaque, PICKLE_INVALID where it is something else */
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
  // bytes have no kind; `in` would be slower, and this is asked of every value
  return typeof value === "object" && value !== null && (value as { kind?: unknown }).kind === kind;
}

/** @throws as `expectKind` */
export function expectText(value: PickleValue | undefined, what: string, at: ErrorLocation): string {
  if (typeof value === "string") return value;
  throw unexpectedValueError(value, "text", what, at);
}

/** A size or an offset. @throws as `expectKind`; SIZE_UNSAFE for an int that is negative or beyond 2^53 */
export function expectSize(value: PickleValue | undefined, what: string, at: ErrorLocation): number {
  if (typeof value !== "number" && typeof value !== "bigint")
    throw unexpectedValueError(value, "an int", what, at);
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  throw new IsologitError("SIZE_UNSAFE", `${what} is ${value}, expected a size from 0 to 2^53`, at);
}

/** Dimensions of a tensor. Torch and numpy stop at 64. */
const MAX_RANK = 64;

/** The sizes of a torch.Size, a tuple or a list. @throws as `expectSize`; LIMIT_EXCEEDED for more than 64 */
export function expectShape(value: PickleValue | undefined, what: string, at: ErrorLocation): Shape {
  if (!isKind(value, "tuple") && !isKind(value, "list"))
    throw unexpectedValueError(value, "a tuple of sizes", what, at);
  if (value.items.length > MAX_RANK) {
    const message = `${what} has ${value.items.length} dimensions; at most ${MAX_RANK} are read`;
    throw new IsologitError("LIMIT_EXCEEDED", message, at);
  }
  return value.items.map((item) => expectSize(item, what, at));
}

/** The entries of a dict whose keys are all text. @throws as `expectKind`; DUPLICATE_NAME for a key that comes twice */
export function byText(
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

/** A record of one of the classes `names`. @throws as `expectKind` */
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

/** @throws PICKLE_REFUSED, PICKLE_INVALID: what was found where `wanted` was expected */
export function unexpectedValueError(
  value: PickleValue | undefined,
  wanted: string,
  what: string,
  at: ErrorLocation,
): IsologitError {
  if (isKind(value, "opaque")) {
    const message = `${what} would be made by ${value.name}, code that is never run; expected ${wanted}`;
    return new IsologitError("PICKLE_REFUSED", message, { ...at, offset: value.offset });
  }
  return new IsologitError("PICKLE_INVALID", `${what} is ${describeValue(value)}, expected ${wanted}`, at);
}

/** Text of a stranger's for a message: in quotes, control characters escaped, and short. */
export function quoteText(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text);
}

/** What a value is, in a word or two, for messages. */
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
      return `what ${value.name} would make`;
    default:
      return `a ${value.kind}`;
  }
}
