/** Reads the text of a flag or of an environment variable. An error names the flag, the text and what was expected. */
import { closest, distance } from "fastest-levenshtein";
import { IsologitError } from "../core/errors.ts";
import { REPORT_KINDS, type ReportFiles, type ReportKind } from "../report/kinds.ts";

/** `name` is the flag or the variable: `--memory` or `ISOLOGIT_MEMORY`. */
export type Reader<T> = (text: string, name: string) => T;

/** @throws USAGE */
export function refuseValue(name: string, text: string, expected: string): never {
  throw new IsologitError("USAGE", `${name} is ${JSON.stringify(text)}, expected ${expected}`);
}

/** @throws USAGE, with the word of `words` that was probably meant */
export function refuseWord(name: string, text: string, words: readonly string[]): never {
  const near = closest(text, words);
  const meant =
    distance(text, near) <= Math.max(1, Math.floor(text.length / 2)) ? `; did you mean ${near}?` : "";
  refuseValue(name, text, `one of ${words.join(", ")}${meant}`);
}

/** Any text except a flag: a flag here means that the value is missing. */
export const readText: Reader<string> = (given, name) =>
  given === "" || given.startsWith("--") ? refuseValue(name, given, "a value") : given;

/**
 * One of `words`.
 *
 * @param aliases other spellings that people know from other software
 */
export function choiceReader<const W extends string>(
  words: readonly W[],
  aliases: Readonly<Record<string, W>> = {},
): Reader<W> {
  return (given, name) => {
    const word = Object.hasOwn(aliases, given) ? aliases[given] : given;
    return words.find((known) => known === word) ?? refuseWord(name, given, words);
  };
}

/** One or more of `words`, with commas between them. */
export function choicesReader<const W extends string>(words: readonly W[]): Reader<readonly W[]> {
  const readWord = choiceReader(words);
  return (given, name) => given.split(",").map((word) => readWord(word.trim(), name));
}

/** A whole number from `least` to `most`, both included. */
export function integerReader(least: number, most: number): Reader<number> {
  return (given, name) => {
    const value = /^\d+$/.test(given) ? Number(given) : Number.NaN;
    return value >= least && value <= most
      ? value
      : refuseValue(name, given, `a whole number from ${least} to ${most}`);
  };
}

/** A decimal number from `least` to `most`, both included. */
export function decimalReader(least: number, most: number, unit: string): Reader<number> {
  const range = most === Number.POSITIVE_INFINITY ? `${least} or more` : `from ${least} to ${most}`;
  return (given, name) => {
    const value = /^(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(given) ? Number(given) : Number.NaN;
    return value >= least && value <= most && Number.isFinite(value)
      ? value
      : refuseValue(name, given, `${unit}, ${range}`);
  };
}

const PREFIXES = ["", "K", "M", "G", "T"];

/**
 * A number of bytes: units such as `GiB` are powers of 1024, units such as `GB` powers of 1000. A number without a unit is
 * refused, because nobody means `--max-shard-size 5` in bytes.
 */
export const readSize: Reader<number> = (given, name) => {
  const parts = /^(\d+(?:\.\d+)?)([KMGT])?(i)?B$/.exec(given.replace(/k(?=i?B$)/, "K"));
  const [, digits, prefix = "", binary] = parts ?? [];
  const factor = (binary ? 1024 : 1000) ** PREFIXES.indexOf(prefix);
  const bytes = Math.floor(Number(digits) * factor);
  return Number.isSafeInteger(bytes) && bytes > 0 && !(binary && prefix === "")
    ? bytes
    : refuseValue(name, given, "a size with its unit, such as 5GB, 1GiB or 512MiB");
};

/** A kind of report and the file for it. */
type ReportEntry = readonly [kind: ReportKind, file: string];

/** Files by kind: `junit=F,sarif=F`. A comma without a kind after it is part of a file name. */
export const readReports: Reader<readonly ReportEntry[]> = (given, name) =>
  given.split(new RegExp(`,(?=(?:${REPORT_KINDS.join("|")})=)`)).map((entry): ReportEntry => {
    const [, word, file] = /^([a-z]+)=(.+)$/s.exec(entry) ?? [];
    const kind = REPORT_KINDS.find((known) => known === word);
    if (kind !== undefined && file !== undefined) return [kind, file];
    return refuseValue(name, given, `a list of ${REPORT_KINDS.map((known) => `${known}=FILE`).join(",")}`);
  });

/** The reports of all `--report`. @throws USAGE for a kind or a file that is given twice */
export function reportFiles(entries: readonly ReportEntry[]): ReportFiles {
  for (const [i, [kind, file]] of entries.entries()) {
    if (entries.slice(0, i).some((other) => other[0] === kind || other[1] === file))
      refuseValue("--report", `${kind}=${file}`, "each kind and each file only once");
  }
  return Object.fromEntries(entries);
}

const LARGEST_ID = 2 ** 31 - 1;

/** Token ids: `1,2,3`; a file may also use white space or a JSON list. */
export const readIds: Reader<readonly number[]> = (given, name) => {
  const listed = given.trim().replace(/^\[(.*)\]$/s, "$1");
  const readId = integerReader(0, LARGEST_ID);
  return listed.split(/\s*,\s*|\s+/).map((id) => readId(id, `an id of ${name}`));
};

/** The ids of one prompt, as `readIds`, or of several: a JSON list of lists. */
export const readPrompts: Reader<readonly (readonly number[])[]> = (given, name) => {
  if (!/^\s*\[\s*\[/.test(given)) return [readIds(given, name)];
  const lists = /^\s*\[((\s*\[[^[\]]*\]\s*,?)+)\s*\]\s*$/.exec(given);
  const parts = lists?.[1]?.trim().split(/(?<=\])\s*,\s*(?=\[)/);
  if (parts === undefined || parts.some((part) => !/^\[[^[\]]*\]$/.test(part)))
    return refuseValue(
      name,
      `${given.trim().slice(0, 40)}…`,
      "token ids, or a JSON list of lists of token ids",
    );
  return parts.map((part, i) => readIds(part, `prompt ${i} of ${name}`));
};
