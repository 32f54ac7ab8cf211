/** Reads the text of a flag or of an environment variable. An error names the flag, the text and what was expected. */
import { IsologitError } from "../core/errors.ts";
import { REPORT_KINDS, type ReportFiles, type ReportKind } from "../report/write.ts";

/** `name` is the flag or the variable: `--memory` or `ISOLOGIT_MEMORY`. */
export type Reader<T> = (text: string, name: string) => T;

/** @throws USAGE */
export function refuseValue(name: string, text: string, expected: string): never {
  throw new IsologitError("USAGE", `${name} is ${JSON.stringify(text)}, expected ${expected}`);
}

/** @throws NOT_AVAILABLE: the name is reserved for a later version */
export function refuseUnavailable(what: string, next?: string): never {
  throw new IsologitError(
    "NOT_AVAILABLE",
    `${what} is not in this version`,
    {},
    next === undefined ? {} : { next },
  );
}

/** Any text except a flag: a flag here means that the value is missing. */
export const readText: Reader<string> = (given, name) =>
  given === "" || given.startsWith("--") ? refuseValue(name, given, "a value") : given;

/** One of `words`; a word of `absent` is reserved and refused by name. */
export function choiceReader<const W extends string>(words: readonly W[]): Reader<W> {
  return (given, name) =>
    words.find((word) => word === given) ?? refuseValue(name, given, `one of ${words.join(", ")}`);
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

/** A number of bytes: units such as `GiB` are powers of 1024, units such as `GB` powers of 1000. */
export const readSize: Reader<number> = (given, name) => {
  const parts = /^(\d+(?:\.\d+)?)(?:([KMGT])?(i)?B)?$/.exec(given.replace(/k(?=i?B$)/, "K"));
  const [, digits, prefix = "", binary] = parts ?? [];
  const factor = (binary ? 1024 : 1000) ** PREFIXES.indexOf(prefix);
  const bytes = Math.floor(Number(digits) * factor);
  return Number.isSafeInteger(bytes) && bytes > 0 && !(binary && prefix === "")
    ? bytes
    : refuseValue(name, given, "a size such as 1GiB, 512MiB, 5GB or 1073741824");
};

/** Files by kind: `junit=F,sarif=F`. A comma without a kind after it is part of a file name. */
export const readReports: Reader<ReportFiles> = (given, name) => {
  const files: Partial<Record<ReportKind, string>> = {};
  const expected = `a list of ${REPORT_KINDS.map((kind) => `${kind}=FILE`).join(",")}`;
  for (const entry of given.split(new RegExp(`,(?=(?:${REPORT_KINDS.join("|")})=)`))) {
    const [, word, file] = /^([a-z]+)=(.+)$/s.exec(entry) ?? [];
    const kind = REPORT_KINDS.find((known) => known === word);
    if (kind === undefined || file === undefined) refuseValue(name, given, expected);
    const isRepeated = files[kind] !== undefined || Object.values(files).includes(file);
    if (isRepeated) refuseValue(name, given, "each kind and each file only once");
    files[kind] = file;
  }
  return files;
};

const LARGEST_ID = 2 ** 31 - 1;

/** Token ids: `1,2,3`; a file may also use white space or a JSON list. */
export const readIds: Reader<readonly number[]> = (given, name) => {
  const listed = given.trim().replace(/^\[(.*)\]$/s, "$1");
  const readId = integerReader(0, LARGEST_ID);
  return listed.split(/\s*,\s*|\s+/).map((id) => readId(id, `an id of ${name}`));
};
