/** Types and checks for the tables of config keys: keys with only one supported value, and keys that are not read. */
import { type ErrorLocation, IsologitError } from "../../core/errors.ts";
import { canonicalJson } from "../../core/hash.ts";
import type { KeyRemark } from "../dialect.ts";
import type { Config } from "../structure.ts";

/** The models that a key concerns: those with layers of this letter, with prediction steps, or with more than one step. */
export type Where = "M" | "*" | "-" | "E" | "steps" | "many steps";

/** A key that engines use, of which only some values are computed here. The first of them is the default. */
export interface OnlyKey {
  readonly key: string;
  /** the file that reads it */
  readonly source: string;
  readonly only: readonly unknown[];
  /** if present, all values but these are supported: some values concern only training */
  readonly never?: readonly unknown[];
  /** effect of another value; begins with a verb */
  readonly does: string;
  readonly on?: Where;
  /** value that engines use if the key is absent; default: one of `only` */
  readonly absent?: unknown;
  /** the key is also written, because some loaders have another default */
  readonly written?: true;
}

/** Keys on which the forward pass does not depend, and why. */
export interface UnreadKeys {
  readonly why: string;
  readonly source: string;
  readonly keys: readonly string[];
}

/** Whether a model, given its layer letters and its number of prediction steps, is among the models of a `Where`. */
export function placesOf(letters: string, steps: number): (where: Where | undefined) => boolean {
  return (where) => {
    if (where === undefined) return true;
    if (where === "steps") return steps > 0;
    return where === "many steps" ? steps > 1 : letters.includes(where);
  };
}

/** @throws UNSUPPORTED naming key, value and default */
export function refuseOtherValues(
  config: Config,
  rows: readonly OnlyKey[],
  has: (where: Where | undefined) => boolean,
  at: ErrorLocation = {},
): void {
  const same = (a: unknown, b: unknown) => canonicalJson(a) === canonicalJson(b);
  for (const { key, only, never, does, on, absent } of rows) {
    const isPresent = Object.hasOwn(config, key) && config[key] !== undefined;
    const value = isPresent ? config[key] : absent;
    if (value === undefined || !has(on)) continue;
    const isRight =
      never === undefined
        ? only.some((allowed) => same(allowed, value))
        : [value].flat().every((part) => !never.some((excluded) => same(excluded, part)));
    if (isRight) continue;
    const found = isPresent
      ? `${key} is ${canonicalJson(value)}`
      : `${key} is absent, which means ${canonicalJson(value)}`;
    throw unsupportedKeyError(`${found}: it ${does}`, key, only[0], at);
  }
}

/** The error for a key whose value changes the function. */
export function unsupportedKeyError(
  message: string,
  key: string,
  usual: unknown,
  at: ErrorLocation,
): IsologitError {
  const value = canonicalJson(usual);
  const next = `if the model was trained with ${key} at its default, ${value}, write that into the config; a model that needs another value is not supported`;
  return new IsologitError("UNSUPPORTED", `${message}; only ${value} is computed here`, at, { next });
}

/** A longer list would not help a reader. */
const MOST_NAMES = 20;

/** Finds the keys that are in no table. */
export function remarkUnknown(config: Config, known: ReadonlySet<string>): readonly KeyRemark[] {
  const keys = Object.keys(config).filter((key) => !known.has(key));
  if (keys.length === 0) return [];
  const more = keys.length > MOST_NAMES ? ` and ${keys.length - MOST_NAMES} more` : "";
  const message = `config keys that this version does not know and that engines may use: ${keys.slice(0, MOST_NAMES).join(", ")}${more}`;
  return [{ rule: "config-key-unknown", severity: "warning", message }];
}
