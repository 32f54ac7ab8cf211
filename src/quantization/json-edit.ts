/**
 * Changes one key of a JSON text and leaves every other byte as it is. Parsing a config.json and printing it again would
 * lose the spelling of numbers (`1e-05`), a bare `Infinity`, the order of keys and the indentation.
 */
import { IsologitError } from "../core/errors.ts";

/** A member of the outermost object. Positions are indices into the text. */
interface Member {
  readonly key: string;
  /** just after the `{` or `,` before the key */
  readonly start: number;
  readonly keyAt: number;
  readonly valueAt: number;
  /** just after the value */
  readonly end: number;
}

/**
 * The text with this key of the outermost object set. An existing value is replaced in its place; a new key is added at the
 * end in the style of the text. Removing an added key gives the original text again.
 *
 * @throws CONFIG_INVALID when the text is not an object, or has the key twice
 */
export function withMember(text: string, key: string, value: unknown): string {
  const { open, members } = membersOf(text);
  const last = members.at(-1);
  if (last === undefined) {
    const close = text.indexOf("}", open);
    const only = `\n  ${JSON.stringify(key)}: ${printJson(value, "\n  ")}\n`;
    return text.slice(0, open + 1) + only + text.slice(close);
  }
  const gap = text.slice(last.start, last.keyAt);
  const member = memberOf(members, key);
  if (member !== undefined)
    return text.slice(0, member.valueAt) + printJson(value, gap) + text.slice(member.end);
  const colon = /"(\s*:\s*)$/.exec(text.slice(last.keyAt, last.valueAt))![1]!;
  const added = `,${gap}${JSON.stringify(key)}${colon}${printJson(value, gap)}`;
  return text.slice(0, last.end) + added + text.slice(last.end);
}

/** The text without a key of the outermost object. @throws CONFIG_INVALID as `withMember` */
export function withoutMember(text: string, key: string): string {
  const { members } = membersOf(text);
  const member = memberOf(members, key);
  if (member === undefined) return text;
  const index = members.indexOf(member);
  const next = members[index + 1];
  // A comma is removed too: the one before the member, or, for the first member, the one after it.
  if (index > 0) return text.slice(0, member.start - 1) + text.slice(member.end);
  return text.slice(0, member.start) + text.slice(next?.start ?? member.end);
}

/** The text of a key's value, or undefined. @throws CONFIG_INVALID as `withMember` */
export function memberText(text: string, key: string): string | undefined {
  const member = memberOf(membersOf(text).members, key);
  return member && text.slice(member.valueAt, member.end);
}

function memberOf(members: readonly Member[], key: string): Member | undefined {
  const [first, second] = members.filter((candidate) => candidate.key === key);
  if (second !== undefined) throw invalid(`${JSON.stringify(key)} appears twice`);
  return first;
}

/** JSON in the style of a text with `gap` between members: indented, or on one line. */
function printJson(value: unknown, gap: string): string {
  const line = /\r?\n[ \t]*$/.exec(gap)?.[0];
  if (line === undefined) return JSON.stringify(value);
  return JSON.stringify(value, null, line.replace(/^\r?\n/, "")).replaceAll("\n", line);
}

/** Members of the outermost object. The scan recognises strings and brackets; it does not parse values. */
function membersOf(text: string): { readonly open: number; readonly members: readonly Member[] } {
  const members: Member[] = [];
  const space = (at: number) => token(text, /\s*/y, at);
  const open = space(0);
  if (text[open] !== "{") throw invalid("it is not a JSON object");
  let at = space(open + 1);
  for (let start = open + 1; members.length > 0 || text[at] !== "}"; start = at + 1) {
    const keyAt = space(start);
    const keyEnd = token(text, STRING, keyAt);
    const colon = space(keyEnd);
    if (keyEnd === keyAt || text[colon] !== ":") throw invalid(`a key was expected at character ${keyAt}`);
    const valueAt = space(colon + 1);
    const end = pastValue(text, valueAt);
    members.push({ key: keyOf(text.slice(keyAt, keyEnd)), start, keyAt, valueAt, end });
    at = space(end);
    if (text[at] === "}") break;
    if (text[at] !== ",") throw invalid(`a comma was expected at character ${at}`);
  }
  if (space(at + 1) !== text.length)
    throw invalid(`the text continues after the end of the object, at character ${at}`);
  return { open, members };
}

/** Takes time linear in the text, for any text. */
const STRING = /"[^"\\]*(?:\\[\s\S][^"\\]*)*"/y;
/** Numbers, true, false, null, and Python's NaN and Infinity. */
const WORD = /[\w.+-]+/y;

/** Position just after the longest match at `at`, or `at` itself. */
function token(text: string, pattern: RegExp, at: number): number {
  pattern.lastIndex = at;
  return at + (pattern.exec(text)?.[0].length ?? 0);
}

function pastValue(text: string, start: number): number {
  if (text[start] !== "{" && text[start] !== "[") {
    const end = token(text, text[start] === '"' ? STRING : WORD, start);
    if (end === start) throw invalid(`a value was expected at character ${start}`);
    return end;
  }
  let depth = 0;
  for (let at = start; at < text.length; ) {
    const char = text[at];
    if (char === "{" || char === "[") depth++;
    if ((char === "}" || char === "]") && --depth === 0) return at + 1;
    const next = char === '"' ? token(text, STRING, at) : at + 1;
    if (next === at) break;
    at = next;
  }
  throw invalid(`the bracket at character ${start} is never closed`);
}

function keyOf(quoted: string): string {
  try {
    return JSON.parse(quoted) as string; // what a string literal parses to
  } catch (cause) {
    throw new IsologitError("CONFIG_INVALID", `${quoted} is not a JSON string`, {}, { cause });
  }
}

function invalid(found: string): IsologitError {
  return new IsologitError("CONFIG_INVALID", found);
}
