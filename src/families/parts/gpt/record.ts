/** A record of Megatron's GPTModel by its keys. */
import { canonicalJson } from "../../../core/hash.ts";
import type { Config } from "../../structure.ts";
import { classDefaults } from "./classes.ts";
import { invalidRecordError } from "./errors.ts";

/** Keys of a record by name, with the defaults of its class where the record is silent. */
export class GptRecord {
  readonly config: Config;
  /** whether NeMo wrote the record: it counts a window in another way */
  readonly isNemo: boolean;
  readonly #defaults: Config;

  constructor(config: Config) {
    this.config = config;
    this.#defaults = classDefaults(config._target_);
    this.isNemo =
      /^nemo\./.test(String(config._target_ ?? "")) ||
      config.target !== undefined ||
      "nemo_version" in config;
  }

  /** The value of the first of these keys that is present and not null, else that of the class. */
  value(...names: readonly string[]): unknown {
    for (const source of [this.config, this.#defaults])
      for (const name of names) if (source[name] !== undefined && source[name] !== null) return source[name];
    return undefined;
  }

  /** @throws CONFIG_INVALID for a value that is no number above 0 */
  number(...names: readonly string[]): number | undefined {
    const value = this.value(...names);
    if (value === undefined || (typeof value === "number" && value > 0)) return value;
    throw invalidRecordError(`${names[0]} is ${canonicalJson(value)}, expected a number above 0`);
  }

  /** @throws CONFIG_INVALID where the record lacks it */
  need(...names: readonly string[]): number {
    const value = this.number(...names);
    if (value === undefined) throw invalidRecordError(`${names[0]} is missing`);
    return value;
  }

  /** @throws CONFIG_INVALID for a value that is no whole number above 0 */
  countOr(...names: readonly string[]): number | undefined {
    const value = this.number(...names);
    if (value === undefined || Number.isSafeInteger(value)) return value;
    throw invalidRecordError(`${names[0]} is ${value}, expected a whole number`);
  }

  /** @throws CONFIG_INVALID where the record lacks it, or for a value that is no whole number above 0 */
  count(...names: readonly string[]): number {
    const value = this.countOr(...names);
    if (value === undefined) throw invalidRecordError(`${names[0]} is missing`);
    return value;
  }

  flag(...names: readonly string[]): boolean {
    return this.value(...names) === true;
  }

  /** The dotted name of a class or function, or a name alone. */
  name(...names: readonly string[]): string {
    const value = this.value(...names);
    const named = value !== null && typeof value === "object" && "_target_" in value ? value._target_ : value;
    return typeof named === "string" ? named : "";
  }
}
