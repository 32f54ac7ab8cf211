/**
 * JSON as checkpoints spell it. Strict where `JSON.parse` is lax (a repeated key silently wins, depth has no
 * limit), and, where asked, open to Python's bare `Infinity` and `NaN`, which NVIDIA's own config files hold.
 */
import { type ErrorCode, IsologitError } from "./errors.ts";

export type Json =
  | null
  | boolean
  | number
  | string
  | readonly Json[]
  | {
      readonly [key: string]: Json;
    };

interface JsonOptions {
  /** what a text that is no JSON is called; default CONFIG_INVALID */
  readonly code?: ErrorCode;
  /** named in errors */
  readonly file?: string;
  /** accept `Infinity`, `-Infinity`, `NaN` outside strings, and `{"__float__": "Infinity"}` for the same */
  readonly nonFinite?: boolean;
  /** refuse numbers that are not spelt with digits alone: `2.0`, `1e3`, `-0` */
  readonly digitsOnly?: boolean;
}

/** A config nests 4 deep, a quantisation config 6. More is an attack on whoever walks the value recursively. */
const MAX_DEPTH = 64;

/**
 * The value of a JSON text. Keys such as `__proto__` become plain own properties, never a prototype.
 *
 * @param source text, or its UTF-8 bytes
 * @throws `options.code`; DUPLICATE_NAME for a key twice in one object; LIMIT_EXCEEDED beyond 64 levels
 */
export function parseJson(source: string | Uint8Array, options: JsonOptions = {}): Json {
  const { code = "CONFIG_INVALID", nonFinite = false } = options;
  const at = options.file === undefined ? {} : { file: options.file };
  let text: string;
  try {
    text = typeof source === "string" ? source : new TextDecoder("utf-8", UTF8).decode(source);
  } catch (cause) {
    throw new IsologitError(code, "the text is not UTF-8", at, { cause });
  }
  if (text.startsWith(BYTE_ORDER_MARK)) {
    const next = "save the file as UTF-8 without a byte order mark";
    throw new IsologitError(code, "the text begins with a byte order mark, which JSON does not allow", at, {
      next,
    });
  }
  const strict = scan(text, options, at);
  let value: Json;
  try {
    value = JSON.parse(strict);
  } catch (cause) {
    throw new IsologitError(code, `not JSON: ${(cause as Error).message}`, at, { cause });
  }
  return nonFinite ? withFloats(value) : value;
}

const BYTE_ORDER_MARK = "\ufeff";
/** A byte order mark stays in the text, and is refused there, as Python does. */
const UTF8 = { fatal: true, ignoreBOM: true };

/** As `parseJson`, where only an object will do. */
export function parseJsonObject(
  source: string | Uint8Array,
  options: JsonOptions = {},
): { readonly [key: string]: Json } {
  const value = parseJson(source, options);
  if (isJsonObject(value)) return value;
  const found = value === null ? "null" : Array.isArray(value) ? "a list" : `a ${typeof value}`;
  const at = options.file === undefined ? {} : { file: options.file };
  throw new IsologitError(options.code ?? "CONFIG_INVALID", `expected a JSON object, found ${found}`, at);
}

export function isJsonObject(value: unknown): value is { readonly [key: string]: Json } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * One pass over the tokens, before anything is built: strings are stepped over, depth and keys are checked.
 * Whatever else is wrong is left for `JSON.parse` to find.
 *
 * @returns the text, with each bare non-finite number respelt as `{"__float__": …}` where those are welcome
 */
function scan(text: string, options: JsonOptions, at: { file?: string }): string {
  const open: (Set<string> | null)[] = []; // keys of each enclosing object; null for a list
  const respelt: string[] = [];
  let kept = 0; // the text before this index is in `respelt`
  let string = ""; // the latest string, quotes included: a key, once a colon follows
  for (let i = 0; i < text.length; i++) {
    switch (text.charCodeAt(i)) {
      case QUOTE: {
        const end = endOfString(text, i);
        string = text.slice(i, end);
        i = end - 1;
        break;
      }
      case COLON: {
        const keys = open.at(-1);
        const key = keyOf(string);
        if (keys?.has(key)) throw new IsologitError("DUPLICATE_NAME", `the key ${string} appears twice`, at);
        keys?.add(key);
        break;
      }
      case BRACE_OPEN:
      case BRACKET_OPEN:
        open.push(text[i] === "{" ? new Set() : null);
        if (open.length > MAX_DEPTH) {
          throw new IsologitError("LIMIT_EXCEEDED", `JSON nested deeper than ${MAX_DEPTH} levels`, at);
        }
        break;
      case BRACE_CLOSE:
      case BRACKET_CLOSE:
        open.pop();
        break;
      case MINUS:
      case UPPER_I:
      case UPPER_N: {
        const word = options.nonFinite ? NON_FINITE.find((w) => text.startsWith(w, i)) : undefined;
        if (word !== undefined) {
          respelt.push(text.slice(kept, i), `{"__float__":"${word}"}`);
          i += word.length - 1;
          kept = i + 1;
        } else if (options.digitsOnly) refuseNumber(text, i, options, at);
        break;
      }
      case DOT:
      case UPPER_E:
      case LOWER_E: // of an exponent; `true` and `false` have theirs after a letter
        if (options.digitsOnly && /[0-9.]/.test(text[i - 1] ?? "")) refuseNumber(text, i, options, at);
        break;
    }
  }
  return respelt.length === 0 ? text : respelt.join("") + text.slice(kept);
}

const [QUOTE, COLON, MINUS, DOT] = [0x22, 0x3a, 0x2d, 0x2e];
const [BRACE_OPEN, BRACE_CLOSE, BRACKET_OPEN, BRACKET_CLOSE] = [0x7b, 0x7d, 0x5b, 0x5d];
const [UPPER_I, UPPER_N, UPPER_E, LOWER_E] = [0x49, 0x4e, 0x45, 0x65];
const NON_FINITE = ["-Infinity", "Infinity", "NaN"] as const;

function refuseNumber(text: string, i: number, options: JsonOptions, at: { file?: string }): never {
  const number = /[-+.0-9eE]*$/.exec(text.slice(Math.max(0, i - 20), i + 1))![0];
  throw new IsologitError(
    options.code ?? "CONFIG_INVALID",
    `a number begins ${number}: only digits will do`,
    at,
  );
}

/** The index after the closing quote of the string that opens at `start`; the text's length where none closes. */
function endOfString(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); end !== -1; end = text.indexOf('"', end + 1)) {
    let slashes = 0;
    while (text[end - 1 - slashes] === "\\") slashes++;
    if (slashes % 2 === 0) return end + 1;
  }
  return text.length;
}

/** `"\u0061"` and `"a"` are one key. A broken escape is left for `JSON.parse` of the whole to refuse. */
function keyOf(string: string): string {
  if (!string.includes("\\")) return string.slice(1, -1);
  try {
    return JSON.parse(string);
  } catch {
    return string;
  }
}

/** Replaces each `{"__float__": word}` by its number, in place: the value was only just parsed, nobody holds it. */
function withFloats(value: Json): Json {
  if (typeof value !== "object" || value === null) return value;
  const word = Object.hasOwn(value, "__float__") ? (value as { __float__: Json }).__float__ : undefined;
  if (Object.keys(value).length === 1 && NON_FINITE.some((w) => w === word)) return Number(word);
  const own = value as Record<string, Json>;
  for (const key of Object.keys(own)) {
    const inner = withFloats(own[key]!);
    if (inner !== own[key]) own[key] = inner;
  }
  return value;
}

/**
 * The text that Python's `json.dumps(value, indent=indent)` gives: ASCII only, `1e-05`, bare `Infinity` and `NaN`.
 * A whole number is written without a fraction: JavaScript cannot tell `1.0` from `1`.
 */
export function stringifyJson(value: unknown, indent = 2): string {
  return write(value, "\n", " ".repeat(indent));
}

function write(value: unknown, newline: string, step: string): string {
  const inner = newline + step;
  if (Array.isArray(value)) {
    if (value.length === 0) return "[]";
    return `[${inner}${value.map((item) => write(item, inner, step)).join(`,${inner}`)}${newline}]`;
  }
  if (isJsonObject(value)) {
    const entries = Object.entries(value).filter(([, item]) => item !== undefined);
    if (entries.length === 0) return "{}";
    const lines = entries.map(([key, item]) => `${ascii(key)}: ${write(item, inner, step)}`);
    return `{${inner}${lines.join(`,${inner}`)}${newline}}`;
  }
  if (typeof value === "string") return ascii(value);
  if (typeof value === "number") return numberText(value);
  if (typeof value === "boolean" || value === null) return String(value);
  throw new IsologitError("INTERNAL", `a ${typeof value} has no JSON`);
}

function ascii(text: string): string {
  return JSON.stringify(text).replace(
    /[\u007f-\uffff]/g,
    (c) => (c === "\x7f" ? c : `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`), // Python leaves DEL alone
  );
}

/** Python's `repr`: an exponent below 1e-4 and from 1e16 on, of two digits at least. */
function numberText(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (Object.is(value, -0)) return "-0.0";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e16)) {
    return value.toExponential().replace(/e([+-])(\d)$/, "e$10$2");
  }
  return String(value);
}
