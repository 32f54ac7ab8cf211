/** Texts of the form `key=value,key=value`. */
import { IsologitError } from "../../core/errors.ts";

/**
 * The values by key.
 *
 * @param option the option that has this text, for errors
 * @throws USAGE for an entry without a value, for an unknown key and for a key that is given twice
 */
export function entriesOf(
  option: string,
  text: string,
  keys: readonly string[],
): ReadonlyMap<string, string> {
  const entries = new Map<string, string>();
  for (const entry of text.split(",")) {
    const [, key, value] = /^\s*(\w+)\s*=\s*(\S+)\s*$/.exec(entry) ?? [];
    if (key === undefined || value === undefined)
      throw new IsologitError("USAGE", `\`${option}\` has ${JSON.stringify(entry)}, expected key=value`);
    if (!keys.includes(key))
      throw new IsologitError("USAGE", `\`${option}\` has the key ${key}; its keys are ${keys.join(", ")}`);
    if (entries.has(key)) throw new IsologitError("USAGE", `\`${option}\` has ${key} twice`);
    entries.set(key, value);
  }
  return entries;
}
