/** Text of a flag, or of an environment variable, to its value. A refusal names the flag, the text and what was expected. */
import { IsologitError } from "../core/errors.ts";
import { REPORT_KINDS, type ReportFiles, type ReportKind } from "../report/write.ts";

/** `name` is what the person wrote: `--memory`, or `ISOLOGIT_MEMORY`. */
export type Reader<T> = (text: string, name: string) => T;

/** @throws USAGE */
export function refuse(name: string, text: string, expected: string): never {
  throw new IsologitError("USAGE", `${name} is ${JSON.stringify(text)}, expected ${expected}`);
}

/** @throws NOT_AVAILABLE: the contract promises it, this version does not have it */
export function notAvailable(what: string, next?: string): never {
  throw new IsologitError(
    "NOT_AVAILABLE",
    `${what} is not in this version`,
    {},
    next === undefined ? {} : { next },
  );
}

/** Any text; a flag in its place means that the value was forgotten. */
export const text: Reader<string> = (given, name) =>
  given === "" || given.startsWith("--") ? refuse(name, given, "a value") : given;

/** One of `words`; one of `absent` is promised, and refused by name. */
export function choice<const W extends string>(
  words: readonly W[],
  absent: readonly string[] = [],
): Reader<W> {
  return (given, name) => {
    const word = words.find((candidate) => candidate === given);
    if (word !== undefined) return word;
    if (absent.includes(given)) notAvailable(`${name} ${given}`, `use ${words.join(" or ")}`);
    return refuse(name, given, `one of ${words.join(", ")}`);
  };
}

/** A whole number from `least` to `most`, both allowed. */
export function integer(least: number, most: number): Reader<number> {
  return (given, name) => {
    const value = /^\d+$/.test(given) ? Number(given) : Number.NaN;
    return value >= least && value <= most
      ? value
      : refuse(name, given, `a whole number from ${least} to ${most}`);
  };
}

/** A decimal number from `least` to `most`, both allowed. */
export function decimal(least: number, most: number, unit: string): Reader<number> {
  const range = most === Number.POSITIVE_INFINITY ? `${least} or more` : `from ${least} to ${most}`;
  return (given, name) => {
    const value = /^(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(given) ? Number(given) : Number.NaN;
    return value >= least && value <= most && Number.isFinite(value)
      ? value
      : refuse(name, given, `${unit}, ${range}`);
  };
}

const PREFIXES = ["", "K", "M", "G", "T"];

/** Bytes: `1GiB` and its like are powers of 1024, `5GB` and its like powers of 1000, a plain number is bytes. */
export const size: Reader<number> = (given, name) => {
  const parts = /^(\d+(?:\.\d+)?)(?:([KMGT])?(i)?B)?$/.exec(given.replace(/k(?=i?B$)/, "K"));
  const [, digits, prefix = "", binary] = parts ?? [];
  const factor = (binary ? 1024 : 1000) ** PREFIXES.indexOf(prefix);
  const bytes = Math.floor(Number(digits) * factor);
  return Number.isSafeInteger(bytes) && bytes > 0 && !(binary && prefix === "")
    ? bytes
    : refuse(name, given, "a size such as 1GiB, 512MiB, 5GB or 1073741824");
};

/** Files by kind: `junit=F,sarif=F`. A comma that no kind follows belongs to a file's name. */
export const reports: Reader<ReportFiles> = (given, name) => {
  const files: Partial<Record<ReportKind, string>> = {};
  const expected = `a list of ${REPORT_KINDS.map((kind) => `${kind}=FILE`).join(",")}`;
  for (const entry of given.split(new RegExp(`,(?=(?:${REPORT_KINDS.join("|")})=)`))) {
    const [, word, file] = /^([a-z]+)=(.+)$/s.exec(entry) ?? [];
    const kind = REPORT_KINDS.find((known) => known === word);
    if (kind === undefined || file === undefined) refuse(name, given, expected);
    const twice = files[kind] !== undefined || Object.values(files).includes(file);
    if (twice) refuse(name, given, "each kind and each file once");
    files[kind] = file;
  }
  return files;
};

const LARGEST_ID = 2 ** 31 - 1;

/** Token ids: `1,2,3`; in a file also by white space, or as a JSON list. */
export const ids: Reader<readonly number[]> = (given, name) => {
  const listed = given.trim().replace(/^\[(.*)\]$/s, "$1");
  const readId = integer(0, LARGEST_ID);
  return listed.split(/\s*,\s*|\s+/).map((id) => readId(id, `an id of ${name}`));
};
