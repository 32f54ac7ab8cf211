/**
 * A stand-in for the JSON parser of `src/core`, with the same signature: delete it once that one is there.
 * It accepts bare `Infinity`, `-Infinity` and `NaN` outside strings, as Python writes them.
 */
import { IsologitError } from "../../src/core/errors.ts";

export function parseJsonObject(
  bytes: Uint8Array,
  { file }: { readonly file: string; readonly nonFinite: true },
): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    const respelt = text.replace(/"(?:[^"\\]|\\.)*"|-?Infinity|NaN/g, (word) =>
      word.startsWith('"') ? word : `{"__float__":"${word}"}`,
    );
    value = JSON.parse(respelt, (_key, inner) =>
      typeof inner?.__float__ === "string" ? Number(inner.__float__) : inner,
    );
  } catch (cause) {
    throw new IsologitError("CONFIG_INVALID", `not JSON: ${(cause as Error).message}`, { file }, { cause });
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Readonly<Record<string, unknown>>; // a JSON object has string keys
  }
  throw new IsologitError("CONFIG_INVALID", "expected a JSON object", { file });
}
