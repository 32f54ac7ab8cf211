/** Settings out of a pickle, as a config file would hold them: the `args` of a training run. */
import { IsologitError, type Place } from "../../src/core/errors.ts";
import { isKind, type PickleValue, unexpected } from "./pickle-value.ts";

/** Nesting of settings, and how many: a training run has some 700, three deep. A value may contain itself. */
const MAX_DEPTH = 32;
const MAX_VALUES = 100_000;

/** Objects whose attributes are settings. */
const NAMESPACES = ["argparse.Namespace", "types.SimpleNamespace"];

/**
 * Text, numbers, booleans and None; lists, dicts with text keys and namespaces of these; a dtype or a class by its
 * dotted name. Whatever is none of these is left out, in a list it is null.
 *
 * @throws LIMIT_EXCEEDED for values too deep or too many; PICKLE_REFUSED, PICKLE_INVALID where `value` itself is no such thing
 */
export function settingsOf(value: PickleValue | undefined, what: string, at: Place): Record<string, unknown> {
  let left = MAX_VALUES;
  function plain(value: PickleValue, depth: number): unknown {
    if (depth > MAX_DEPTH || --left < 0) {
      const message = `${what} is nested deeper than ${MAX_DEPTH}, or has more than ${MAX_VALUES} values`;
      throw new IsologitError("LIMIT_EXCEEDED", message, at);
    }
    if (typeof value === "bigint") return value.toString();
    if (value === null || typeof value !== "object") return value;
    if (isKind(value, "global")) return value.name;
    if (isKind(value, "list") || isKind(value, "tuple") || isKind(value, "set")) {
      return value.items.map((item) => plain(item, depth + 1) ?? null);
    }
    const pairs = pairsOf(value);
    if (pairs === null) return undefined;
    const kept: [string, unknown][] = [];
    for (const [key, held] of pairs) {
      const text = typeof key === "string" ? plain(held, depth + 1) : undefined;
      if (text !== undefined) kept.push([key as string, text]); // only text keys have one
    }
    return Object.fromEntries(kept); // own properties all, `__proto__` too
  }
  if (value !== undefined && pairsOf(value) !== null) return plain(value, 0) as Record<string, unknown>; // it has pairs
  throw unexpected(value, "a namespace or a dict", what, at);
}

function pairsOf(value: PickleValue): Iterable<readonly [PickleValue, PickleValue]> | null {
  if (isKind(value, "dict")) return value.entries;
  return isKind(value, "record") && NAMESPACES.includes(value.name) ? value.fields : null;
}
