/**
 * Whether two side files have the same meaning. Programs that save a tokenizer or a config choose white space, the order of
 * keys, escapes and the form of merges.
 */

import { canonicalJson, sha256 } from "../core/hash.ts";
import { isJsonObject, type Json, parseJson } from "../core/json.ts";

const TOKENIZER = "tokenizer.json";

/** @returns false also for text that is not JSON, and for ambiguous JSON, where only equal bytes are equal */
export function haveSameMeaning(path: string, a: Uint8Array, b: Uint8Array): boolean {
  if (!path.endsWith(".json")) return false;
  const meaning = meaningOf(path, a); // a digest, so that only one large value is in memory at a time
  return meaning !== null && meaning === meaningOf(path, b);
}

function meaningOf(path: string, bytes: Uint8Array): string | null {
  const value = read(path, bytes);
  if (value === null || !isPlain(value)) return null;
  const digest = sha256(canonicalJson(path === TOKENIZER ? withPairs(value) : value));
  return `${digest} ${countFractions(bytes)}`;
}

/** Whether a number is written as `5.0`. JSON reads it as 5, but a library that needs an id refuses it. */
function countFractions(bytes: Uint8Array): number {
  const bare = new TextDecoder().decode(bytes).replace(/"(?:[^"\\]|\\.)*"/g, "");
  const whole = bare.match(/-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g) ?? [];
  return whole.filter((text) => !/^\d+$|^-[1-9]\d*$/.test(text) && Number.isInteger(Number(text))).length;
}

function read(path: string, bytes: Uint8Array): Json {
  try {
    return parseJson(bytes, { file: path });
  } catch {
    return null; // only the bytes can be compared, and they differ
  }
}

/** Whether every number was read exactly: two numbers above 2^53 can look equal after reading. */
function isPlain(value: Json): boolean {
  if (typeof value === "number") return !Number.isInteger(value) || Number.isSafeInteger(value);
  if (typeof value !== "object" || value === null) return true;
  return Object.values(value).every(isPlain);
}

/** Merges of a BPE model as pairs: the tokenizers library writes them as pairs since 0.20, and as "a b" before. */
function withPairs(tokenizer: Json): Json {
  if (!isJsonObject(tokenizer) || !isJsonObject(tokenizer.model)) return tokenizer;
  const { merges } = tokenizer.model;
  if (!Array.isArray(merges)) return tokenizer;
  const pairs = merges.map((merge: Json) => (typeof merge === "string" ? merge.split(" ") : merge));
  return { ...tokenizer, model: { ...tokenizer.model, merges: pairs } };
}
