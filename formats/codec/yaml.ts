/** Configs that Python writes as YAML 1.1: read as plain data, and written so that Python reads the same values. */
import { parseDocument, type ScalarTag, stringify } from "yaml";
import { type ErrorLocation, IsologitError } from "../../src/core/errors.ts";

export type ConfigRecord = Readonly<Record<string, unknown>>;

/** A resolved config of NeMo 2 has some 200 lines; a megabyte takes half a second to read. */
export const MAX_YAML_BYTES = 1024 * 1024;
/** Hand-written configs share a value or two; a hostile file doubles values thirty times. */
const MAX_ALIASES = 100;

/**
 * The mapping in a YAML file.
 *
 * @throws CONFIG_INVALID for anything but a YAML mapping, and for tags, which name Python objects;
 *   LIMIT_EXCEEDED for more nesting or aliases than any config has
 */
export function parseYaml(bytes: Uint8Array, at: ErrorLocation): ConfigRecord {
  if (bytes.byteLength > MAX_YAML_BYTES) {
    throw new IsologitError("LIMIT_EXCEEDED", `${bytes.byteLength} bytes of YAML, expected a config`, at);
  }
  const value = plain(new TextDecoder().decode(bytes), at);
  if (isRecord(value)) return value;
  throw new IsologitError("CONFIG_INVALID", "the YAML is not a mapping of names to values", at);
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
    // The library recurses for nesting, and throws a ReferenceError above its limit of aliases.
    if (!(cause instanceof RangeError) && !(cause instanceof ReferenceError)) throw cause;
    throw new IsologitError("LIMIT_EXCEEDED", "the YAML nests or repeats more than a config does", at, {
      cause,
    });
  }
  throw new IsologitError("CONFIG_INVALID", `the YAML cannot be read as plain data: ${fault}`, at);
}

/**
 * PyYAML reads a number as a float only with a point and a signed exponent: it reads `1e-7`, as JavaScript writes it, as text.
 */
const pythonFloat: ScalarTag = {
  tag: "tag:yaml.org,2002:float",
  default: true,
  test: /^$/, // for writing only
  resolve: Number,
  identify: (value) => typeof value === "number" && !Number.isInteger(value),
  stringify: ({ value }) => pythonNumber(value as number), // `identify` accepts only numbers
};

function pythonNumber(value: number): string {
  if (Number.isNaN(value)) return ".nan";
  if (!Number.isFinite(value)) return value < 0 ? "-.inf" : ".inf";
  const [digits, exponent] = String(value).split("e");
  if (exponent === undefined) return digits!;
  return `${digits!.includes(".") ? digits : `${digits}.0`}e${exponent}`;
}

/** YAML with sorted keys, like PyYAML; text that YAML 1.1 would take for another value is quoted. */
export function yamlText(value: ConfigRecord): string {
  return stringify(value, {
    version: "1.1",
    sortMapEntries: true,
    lineWidth: 0,
    aliasDuplicateObjects: false,
    customTags: (tags) => [pythonFloat, ...tags],
  });
}
