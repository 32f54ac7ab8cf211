/** Values that grow while their pickle is read: lists, dicts, records. Changes of an opaque value are ignored. */
import { type ErrorLocation, IsologitError } from "../../../src/core/errors.ts";
import { describeValue, isKind, type PickleEntry, type PickleRecord, type PickleValue } from "./value.ts";

/** Only the code that makes values may change them. */
type Growing<T> = { -readonly [K in keyof T]: Grown<T[K]> };
type Grown<T> =
  T extends ReadonlyMap<infer K, infer V> ? Map<K, V> : T extends readonly (infer I)[] ? I[] : T;

/** A new object of a class, with its arguments and without attributes. */
export function recordOf(name: string, args: readonly PickleValue[]): PickleRecord {
  return {
    kind: "record",
    name,
    args,
    fields: new Map(),
    items: [],
    entries: [],
  };
}

/**
 * Gives an object its state: attributes by name, or a value that the class defines.
 *
 * @returns how many attributes were set
 * @throws PICKLE_REFUSED for the state of a class or a function, PICKLE_INVALID for that of any other value
 */
export function setState(object: PickleValue, state: PickleValue, at: ErrorLocation): number {
  if (isKind(object, "global")) {
    throw new IsologitError(
      "PICKLE_REFUSED",
      `the pickle sets attributes of the class or function ${object.name}, which is not allowed`,
      at,
    );
  }
  // torch adds `_metadata` to its state dicts; attributes of a dict are not needed here
  if (isKind(object, "opaque") || isKind(object, "dict")) return 0;
  if (!isKind(object, "record")) throw invalid(`${describeValue(object)} is given a state`, at);
  const record = object as Growing<PickleRecord>; // made by this reader
  let count = 0;
  for (const part of isSlotState(state) ? state.items : [state]) {
    if (isKind(part, "dict")) {
      for (const [key, value] of part.entries) {
        if (typeof key !== "string") throw invalid("an attribute's name is not text", at);
        record.fields.set(key, value);
      }
      count += part.entries.length;
    } else if (part !== null) record.state = part;
  }
  return count;
}

/** A pair (attributes, slots), each possibly None. */
function isSlotState(state: PickleValue): state is Extract<PickleValue, { kind: "tuple" }> {
  return (
    isKind(state, "tuple") &&
    state.items.length === 2 &&
    state.items.every((part) => part === null || isKind(part, "dict"))
  );
}

/** @throws PICKLE_INVALID if the holder takes no items */
export function appendItems(holder: PickleValue, items: readonly PickleValue[], at: ErrorLocation): void {
  if (isKind(holder, "opaque")) return;
  if (!isKind(holder, "list") && !isKind(holder, "set") && !isKind(holder, "record")) {
    throw invalid(`${describeValue(holder)} is appended to`, at);
  }
  const growing = holder as Growing<typeof holder>; // made by this reader
  for (const item of items) growing.items.push(item);
}

/** @param items keys and values in turn. @throws PICKLE_INVALID if the holder takes no entries */
export function setItems(holder: PickleValue, items: readonly PickleValue[], at: ErrorLocation): void {
  const pairs = pairsOf(items, at);
  if (isKind(holder, "opaque")) return;
  if (!isKind(holder, "dict") && !isKind(holder, "record")) {
    throw invalid(`${describeValue(holder)} is given entries`, at);
  }
  const growing = holder as Growing<typeof holder>; // made by this reader
  for (const pair of pairs) growing.entries.push(pair);
}

/** @throws PICKLE_INVALID for a key without a value, or a key that Python cannot hash */
export function pairsOf(items: readonly PickleValue[], at: ErrorLocation): PickleEntry[] {
  if (items.length % 2 !== 0) throw invalid("a dict has a key without a value", at);
  const pairs: PickleEntry[] = [];
  for (let i = 0; i < items.length; i += 2) {
    const key = items[i]!;
    if (isKind(key, "list") || isKind(key, "dict"))
      throw invalid(`a key of a dict is ${describeValue(key)}`, at);
    pairs.push([key, items[i + 1]!]);
  }
  return pairs;
}

function invalid(message: string, at: ErrorLocation): IsologitError {
  return new IsologitError("PICKLE_INVALID", message, at);
}
