/**
 * Names of Transformer Engine in pickles. Only the readers in this folder know them: for other software, loading such a
 * pickle runs code, and `scan` says so.
 */
import type { ErrorLocation } from "../../../src/core/errors.ts";
import type { Meaning } from "../pickle/globals.ts";
import { isKind, type PickleValue } from "../pickle/value.ts";

const ENGINE = /^transformer_engine(_torch|_extensions)?\./;

/** Every class of the engine is a record of its arguments. `getattr` finds a method of such a class, as protocol 2 names it. */
export function engineMeaning(name: string): Meaning | undefined {
  if (ENGINE.test(name)) return { use: "class" };
  return name === GETATTR ? { use: "function", make: attributeOf } : undefined;
}

const GETATTR = "builtins.getattr";

function attributeOf([owner, name]: readonly PickleValue[], at: ErrorLocation): PickleValue {
  const isMethod = isKind(owner, "global") && ENGINE.test(owner.name) && /^\w{1,100}$/.test(String(name));
  return isMethod
    ? { kind: "global", name: `${owner.name}.${String(name)}` }
    : { kind: "opaque", name: GETATTR, offset: at.offset ?? 0 };
}
