/** A pickled config (`args`, `common.pt`) as plain data, as far as JSON can express it. */
import { type ErrorLocation, IsologitError } from "../../../src/core/errors.ts";
import type { ConfigRecord } from "../yaml.ts";
import { isKind, type PickleValue } from "./value.ts";

/** Megatron has some 800 arguments, without nesting. */
const MAX_NODES = 100_000;
const MAX_DEPTH = 32;

/**
 * Names and values of a dict, a Namespace or another object. A dtype or other name becomes `{_target_, _call_}`, as in
 * configs written as YAML. Values that are not plain (tensors, enums, results of code) are left out.
 *
 * @throws LIMIT_EXCEEDED for more sharing or nesting than any config has
 */
export function plainRecord(value: PickleValue | undefined, at: ErrorLocation): ConfigRecord {
  let nodes = 0;

  function plain(value: PickleValue, depth: number): unknown {
    if (++nodes > MAX_NODES || depth > MAX_DEPTH) {
      throw new IsologitError("LIMIT_EXCEEDED", "the pickled config is larger or deeper than a real one", at);
    }
    if (value === null || typeof value === "string" || typeof value === "boolean") return value;
    if (typeof value === "number") return value;
    if (isKind(value, "list") || isKind(value, "tuple"))
      return value.items.map((item) => plain(item, depth + 1));
    if (isKind(value, "global")) return { _target_: value.name, _call_: false };
    if (isKind(value, "dict")) return recordOf(value.entries, depth);
    if (isKind(value, "record") && value.fields.size > 0) return recordOf(value.fields, depth);
    return undefined;
  }

  function recordOf(pairs: Iterable<readonly [PickleValue, PickleValue]>, depth: number): ConfigRecord {
    const record: Record<string, unknown> = {};
    for (const [key, item] of pairs) {
      const read = plain(item, depth + 1);
      if (typeof key !== "string" || read === undefined) continue;
      Object.defineProperty(record, key, { value: read, enumerable: true }); // works for the name `__proto__` too
    }
    return record;
  }

  if (isKind(value, "dict")) return recordOf(value.entries, 0);
  return isKind(value, "record") ? recordOf(value.fields, 0) : {};
}

/** The value of a pickled dict under a name. */
export function entryOf(value: PickleValue | undefined, name: string): PickleValue | undefined {
  if (!isKind(value, "dict")) return undefined;
  for (const [key, held] of value.entries) if (key === name) return held;
  return undefined;
}
