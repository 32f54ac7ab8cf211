/** The numbers of layers in names: in those of scales, and in the lists with which a config describes quantized weights. */
import { IsologitError } from "../core/errors.ts";
import { isJsonObject } from "../core/json.ts";

/** The number of a layer of the main stack in a name, or in a pattern of names. */
const NUMBER = /(?<!mtp\\?\.)(\blayers\\?\.)(\d+)(?!\d)/;

/** A name with the number that its layer gets; null if the layer is dropped. A name without a layer stays as it is. */
export function renumberName(name: string, layers: readonly number[]): string | null {
  const [, , number] = NUMBER.exec(name) ?? [];
  if (number === undefined) return name;
  const at = layers.indexOf(Number(number));
  return at < 0 ? null : name.replace(NUMBER, (_, before: string) => `${before}${at}`);
}

/**
 * A JSON value with the numbers of layers in its texts and keys renewed. Entries of dropped layers are left out.
 *
 * @throws UNSUPPORTED for a regular expression that names layers by more than a number
 */
export function renumberJson(value: unknown, layers: readonly number[], file: string): unknown {
  const renew = (text: string) => {
    if (text.startsWith("re:") && /\blayers\b/.test(text.replace(NUMBER, "")))
      throw new IsologitError(
        "UNSUPPORTED",
        `the list of quantized weights has the pattern ${JSON.stringify(text)}, whose layers cannot be numbered anew`,
        { file },
        { next: "decode the source with `isologit recast SRC PLAIN --dtype bf16`, and prune PLAIN" },
      );
    return renumberName(text, layers);
  };
  if (typeof value === "string") return renew(value);
  if (Array.isArray(value))
    return value.map((item) => renumberJson(item, layers, file)).filter((item) => item !== null);
  if (!isJsonObject(value)) return value;
  const entries = Object.entries(value).flatMap(([key, item]) => {
    const name = renew(key);
    return name === null ? [] : [[name, renumberJson(item, layers, file)] as const];
  });
  return Object.fromEntries(entries);
}
