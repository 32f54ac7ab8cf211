/** The words of this program that an engine runs on other machines, from the flags that were given here. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { type Flag, longName } from "../flag.ts";
import { FLAGS, type FlagName, type Flags } from "../options.ts";
import { readSize } from "../values.ts";

/**
 * Flags as words, for a process that reads them again.
 *
 * @param isLocal the process runs on the same paths, but in another folder: paths become absolute
 */
export function flagWords(flags: Flags, names: readonly FlagName[], isLocal: boolean): readonly string[] {
  return names.flatMap((name) => {
    const value: unknown = flags[name];
    const row: Flag = FLAGS[name];
    if (value === undefined || value === false) return [];
    const long = longName(row);
    if (value === true) return [long];
    const place = (text: unknown) =>
      isLocal && typeof text === "string" && existsSync(text) ? resolve(text) : String(text);
    if (Array.isArray(value)) {
      return row.repeatable ? value.flatMap((one) => [long, place(one)]) : [long, value.join(",")];
    }
    return [long, row.read === readSize ? `${value}B` : place(value)];
  });
}
