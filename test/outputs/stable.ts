/** What two runs of one program agree on: a report without its times, its machine and its wording. */

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** Fields that depend on the machine or on the moment. */
const VOLATILE = new Set(["device", "seconds", "promptSeconds", "peakRssBytes"]);

/** Fields whose text may be reworded. */
const PROSE = new Set([
  "message",
  "next",
  "warnings",
  "why",
  "shortDescription",
  "fullDescription",
  "help",
  "partialFingerprints",
]);

const TEXT = "(text)";

/** Sentences that say which tensor, layer or row is meant: only their names and numbers are compared. */
const LABELS = new Set(["mutation", "differences", "settings", "findings"]);

/** An array of numbers that is longer is replaced by its digest, to keep a record readable. */
const MAX_NUMBERS = 16;

/**
 * A report that two runs can be compared by: sorted keys, no volatile field, no wording.
 *
 * @param digest  the SHA-256 of a text, in hexadecimal
 */
export function stable(value: Json, digest: (text: string) => string): Json {
  if (value === null || typeof value !== "object") return value;
  if (isArray(value)) {
    if (value.length > MAX_NUMBERS && value.every((item) => typeof item === "number")) {
      return `${value.length} numbers, SHA-256 ${digest(JSON.stringify(value))}`;
    }
    return value.map((item) => stable(item, digest));
  }
  const fields = Object.entries(value)
    .filter(([key]) => !VOLATILE.has(key))
    .map(([key, field]): [string, Json] => {
      if (PROSE.has(key)) return [key, withoutText(field)];
      return [key, stable(LABELS.has(key) ? withFacts(field) : field, digest)];
    });
  return Object.fromEntries(fields.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** That a text is there, or how many. SARIF has an object in its place. */
function withoutText(field: Json): Json {
  if (field === null) return null;
  return isArray(field) ? field.map(() => TEXT) : TEXT;
}

/** Reduces a sentence, or the sentences of an array. Objects among them stay as they are. */
function withFacts(field: Json): Json {
  if (typeof field === "string") return factsOf(field);
  return isArray(field) ? field.map((item) => (typeof item === "string" ? factsOf(item) : item)) : field;
}

/** The names and numbers of a sentence, sorted: every word with a digit, a dot, an underscore or a slash inside. */
export function factsOf(sentence: string): string {
  const words = sentence.split(/[\s,;:()[\]"'`]+/).map((word) => word.replace(/\.+$/, ""));
  return words
    .filter((word) => /\d|\w[._/]\w/.test(word))
    .sort()
    .join(" ");
}

/** Kinds of events, each once and sorted; a phase with its name, a rung with its verdict. */
export function eventsOf(ndjson: string): readonly string[] {
  const names = new Set<string>();
  for (const line of ndjson.split("\n").filter((text) => text !== "")) {
    const { type, phase, rung, verdict } = JSON.parse(line);
    if (type === "phase") names.add(`phase ${phase}`);
    else if (type === "rung") names.add(`rung ${rung}: ${verdict}`);
    else names.add(type);
  }
  return [...names].sort();
}

/** `Array.isArray` does not narrow a readonly array. */
function isArray(value: Json): value is readonly Json[] {
  return Array.isArray(value);
}
