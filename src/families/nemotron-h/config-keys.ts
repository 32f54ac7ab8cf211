/** What the tables of config keys have in common: keys that are obeyed at one value only, and keys that are not read. */

import { type ErrorLocation, IsologitError } from "../../core/errors.ts";
import { canonicalJson } from "../../core/hash.ts";
import type { KeyRemark } from "../dialect.ts";
import type { Config } from "../structure.ts";

/** Models that have such a layer; "steps": models with prediction steps; "many steps": with more than one. */
export type Where = "M" | "*" | "-" | "E" | "steps" | "many steps";

/** A key that engines obey, at the values that are computed here: the first is the default. */
export interface OnlyKey {
  readonly key: string;
  /** the file that reads it */
  readonly source: string;
  readonly only: readonly unknown[];
  /** with these, every other value is right: some say how a model is trained */
  readonly never?: readonly unknown[];
  /** what another value does, as a verb */
  readonly does: string;
  readonly on?: Where;
  /** what engines take where the key is not there; default: one of `only` */
  readonly absent?: unknown;
  /** written too: some loaders have another default */
  readonly written?: true;
}

/** Keys on which the forward pass does not depend, and why. */
export interface UnreadKeys {
  readonly why: string;
  readonly source: string;
  readonly keys: readonly string[];
}

/** Where a model's settings are, by its layers. */
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
    const said = Object.hasOwn(config, key) && config[key] !== undefined;
    const value = said ? config[key] : absent;
    if (value === undefined || !has(on)) continue;
    const isRight =
      never === undefined
        ? only.some((one) => same(one, value))
        : [value].flat().every((part) => !never.some((one) => same(one, part)));
    if (isRight) continue;
    const found = said
      ? `${key} is ${canonicalJson(value)}`
      : `${key} is absent, which means ${canonicalJson(value)}`;
    throw unsupportedKeyError(`${found}: it ${does}`, key, only[0], at);
  }
}

/** A key at a value of which the function is not computed. */
export function unsupportedKeyError(
  message: string,
  key: string,
  usual: unknown,
  at: ErrorLocation,
): IsologitError {
  const value = canonicalJson(usual);
  const next = `if the model was made with ${key} at its default, ${value}, write that into the config; a model that needs another value is not read`;
  return new IsologitError("UNSUPPORTED", `${message}; only ${value} is computed here`, at, { next });
}

/** More names than these say nothing to a reader. */
const MOST_NAMES = 20;

/** Keys that no table has. */
export function remarkUnknown(config: Config, known: ReadonlySet<string>): readonly KeyRemark[] {
  const keys = Object.keys(config).filter((key) => !known.has(key));
  if (keys.length === 0) return [];
  const more = keys.length > MOST_NAMES ? ` and ${keys.length - MOST_NAMES} more` : "";
  const message = `config keys that this version does not know, and that engines may obey: ${keys.slice(0, MOST_NAMES).join(", ")}${more}`;
  return [{ rule: "config-key-unknown", severity: "warning", message }];
}
