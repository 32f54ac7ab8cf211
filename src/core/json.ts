/**
 * The JSON of checkpoints. It is stricter than `JSON.parse`, which accepts a repeated key and any depth. On request it
 * also reads the bare `Infinity` and `NaN` of Python, which NVIDIA's config files contain.
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
  /** error code for a text that is not JSON; default CONFIG_INVALID */
  readonly code?: ErrorCode;
  /** named in errors */
  readonly file?: string;
  /** accept `Infinity`, `-Infinity`, `NaN` outside strings, and `{"__float__": "Infinity"}` for the same */
  readonly nonFinite?: boolean;
  /** refuse numbers that are not written with digits only, such as `2.0`, `1e3`, `-0` */
  readonly digitsOnly?: boolean;
}

/** A config nests 4 levels deep, a quantisation config 6. Far deeper values could overflow the stack of recursive code. */
const MAX_DEPTH = 64;

/**
 * The value of a JSON text. A key such as `__proto__` becomes an own property and never sets a prototype.
 *
 * @param source text, or its UTF-8 bytes
 * @throws `options.code`; DUPLICATE_NAME for a key that one object has twice; LIMIT_EXCEEDED beyond 64 levels
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
/** A byte order mark stays in the text, so that it can be refused, as Python refuses it. */
const UTF8 = { fatal: true, ignoreBOM: true };

/** Like `parseJson`, but refuses a value that is not an object. */
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
 * Checks depth and keys in one pass over the tokens, before any value is built. `JSON.parse` finds all other faults.
 *
 * @returns the text; with `nonFinite`, each bare non-finite number is replaced by `{"__float__": …}`
 */
function scan(text: string, options: JsonOptions, at: { file?: string }): string {
  const open: (Set<string> | null)[] = []; // keys of each enclosing object; null for a list
  const replaced: string[] = [];
  let copied = 0; // the text before this index is in `replaced`
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
          replaced.push(text.slice(copied, i), `{"__float__":"${word}"}`);
          i += word.length - 1;
          copied = i + 1;
        } else if (options.digitsOnly) refuseNumber(text, i, options, at);
        break;
      }
      case DOT:
      case UPPER_E:
      case LOWER_E: // an exponent; the e of `true` and `false` follows a letter
        if (options.digitsOnly && /[0-9.]/.test(text[i - 1] ?? "")) refuseNumber(text, i, options, at);
        break;
    }
  }
  return replaced.length === 0 ? text : replaced.join("") + text.slice(copied);
}

const [QUOTE, COLON, MINUS, DOT] = [0x22, 0x3a, 0x2d, 0x2e];
const [BRACE_OPEN, BRACE_CLOSE, BRACKET_OPEN, BRACKET_CLOSE] = [0x7b, 0x7d, 0x5b, 0x5d];
const [UPPER_I, UPPER_N, UPPER_E, LOWER_E] = [0x49, 0x4e, 0x45, 0x65];
const NON_FINITE = ["-Infinity", "Infinity", "NaN"] as const;

function refuseNumber(text: string, i: number, options: JsonOptions, at: { file?: string }): never {
  const number = /[-+.0-9eE]*$/.exec(text.slice(Math.max(0, i - 20), i + 1))![0];
  throw new IsologitError(
    options.code ?? "CONFIG_INVALID",
    `a number begins with ${number}; only digits are allowed`,
    at,
  );
}

/** The index after the closing quote of the string that opens at `start`; the length of the text if there is none. */
function endOfString(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); end !== -1; end = text.indexOf('"', end + 1)) {
    let slashes = 0;
    while (text[end - 1 - slashes] === "\\") slashes++;
    if (slashes % 2 === 0) return end + 1;
  }
  return text.length;
}

/** `"\u0061"` and `"a"` are the same key. `JSON.parse` of the whole text refuses a broken escape. */
function keyOf(string: string): string {
  if (!string.includes("\\")) return string.slice(1, -1);
  try {
    return JSON.parse(string);
  } catch {
    return string;
  }
}

/** Replaces each `{"__float__": word}` by its number, in place: no other code has the value yet. */
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
 * The text of Python's `json.dumps(value, indent=indent)`: ASCII only, `1e-05`, bare `Infinity` and `NaN`.
 * A whole number is written without a fraction, because JavaScript cannot distinguish `1.0` from `1`.
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
  throw new IsologitError("INTERNAL", `a value of type ${typeof value} has no JSON text`);
}

function ascii(text: string): string {
  return JSON.stringify(text).replace(
    /[\u007f-\uffff]/g,
    (c) => (c === "\x7f" ? c : `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`), // Python does not escape DEL
  );
}

/** Python's `repr`: below 1e-4 and from 1e16 on it writes an exponent, of at least two digits. */
function numberText(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (Object.is(value, -0)) return "-0.0";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e16)) {
    return value.toExponential().replace(/e([+-])(\d)$/, "e$10$2");
  }
  return String(value);
}
