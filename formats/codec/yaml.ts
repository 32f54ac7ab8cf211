/** Configs written as YAML by Python, which speaks YAML 1.1: read as plain data, written so that Python's reader gets the same values. */
import { parseDocument, type ScalarTag, stringify } from "yaml";
import { type ErrorLocation, IsologitError } from "../../src/core/errors.ts";

export type ConfigRecord = Readonly<Record<string, unknown>>;

/** A resolved NeMo 2 config has some 200 lines; a megabyte takes half a second to read. */
export const MAX_YAML_BYTES = 1024 * 1024;
/** Hand-written configs share a value or two; a bomb doubles them thirty times. */
const MAX_ALIASES = 100;

/**
 * The mapping that a YAML file holds.
 *
 * @throws CONFIG_INVALID for what is no YAML mapping, and for tags, which name Python objects to be built;
 *   LIMIT_EXCEEDED for nesting or aliases that no config has
 */
export function parseYaml(bytes: Uint8Array, at: ErrorLocation): ConfigRecord {
  if (bytes.byteLength > MAX_YAML_BYTES) {
    throw new IsologitError("LIMIT_EXCEEDED", `${bytes.byteLength} bytes of YAML, expected a config`, at);
  }
  const value = plain(new TextDecoder().decode(bytes), at);
  if (isRecord(value)) return value;
  throw new IsologitError("CONFIG_INVALID", "the YAML is no mapping of names to values", at);
}

export function isRecord(value: unknown): value is ConfigRecord {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

function plain(text: string, at: ErrorLocation): unknown {
  let fault: string | undefined;
  try {
    const document = parseDocument(text, { version: "1.1", prettyErrors: false });
    fault = [...document.errors, ...document.warnings][0]?.message;
    if (fault === undefined) return document.toJS({ maxAliasCount: MAX_ALIASES });
  } catch (cause) {
    // The library recurses into nesting and throws a ReferenceError at its limit of aliases.
    if (!(cause instanceof RangeError) && !(cause instanceof ReferenceError)) throw cause;
    throw new IsologitError("LIMIT_EXCEEDED", "the YAML nests or repeats more than a config does", at, {
      cause,
    });
  }
  throw new IsologitError("CONFIG_INVALID", `the YAML cannot be read as plain data: ${fault}`, at);
}

/**
 * PyYAML takes a number for a float only where it has a point and a signed exponent: what JavaScript spells
 * `1e-7` it reads as text.
 */
const pythonFloat: ScalarTag = {
  tag: "tag:yaml.org,2002:float",
  default: true,
  test: /^$/, // for writing only
  resolve: Number,
  identify: (value) => typeof value === "number" && !Number.isInteger(value),
  stringify: ({ value }) => pythonNumber(value as number), // `identify` lets only numbers in
};

function pythonNumber(value: number): string {
  if (Number.isNaN(value)) return ".nan";
  if (!Number.isFinite(value)) return value < 0 ? "-.inf" : ".inf";
  const [digits, exponent] = String(value).split("e");
  if (exponent === undefined) return digits!;
  return `${digits!.includes(".") ? digits : `${digits}.0`}e${exponent}`;
}

/** Keys sorted, as PyYAML sorts them; text that YAML 1.1 would take for something else is quoted. */
export function yamlText(value: ConfigRecord): string {
  return stringify(value, {
    version: "1.1",
    sortMapEntries: true,
    lineWidth: 0,
    aliasDuplicateObjects: false,
    customTags: (tags) => [pythonFloat, ...tags],
  });
}
