/** Reads config.json as Transformers reads it, by a family's tables of keys. */
import { IsologitError } from "../../core/errors.ts";
import { canonicalJson } from "../../core/hash.ts";
import type { KeyRemark } from "../dialect.ts";
import type { Config } from "../structure.ts";
import {
  type OnlyKey,
  refuseOtherValues,
  remarkUnknown,
  type UnreadKeys,
  type Where,
} from "./config-keys.ts";
import type { KeyValue } from "./key-values.ts";
import { WEIGHTS_KEY } from "./transformers-keys.ts";

/** Another key of a setting. All keys that are present must agree, because engines differ in which they read. */
interface OtherKey<Source extends string = string> {
  readonly key: string;
  readonly source: Source;
  /** allowed values; default: those of the row */
  readonly value?: KeyValue;
  /** Transformers does not read it: without the key of the row it uses the row's `absent` */
  readonly ignored?: true;
  /** also written, for software that reads only this key */
  readonly written?: true;
}

/** A setting and its keys. */
export interface SettingKey<Source extends string = string> {
  readonly setting: string;
  readonly key: string;
  readonly source: Source;
  readonly value: KeyValue;
  readonly on?: Where;
  readonly others?: readonly OtherKey<Source>[];
  /** default of Transformers; if there is none, a key must be present */
  readonly absent?: unknown;
  /** `null` means absent: Transformers refuses it, and no engine reads anything else in it */
  readonly nullable?: true;
}

/** The keys of one family. A key in no table is unknown, and `check` names it. */
interface ConfigTables {
  /** classes of the family in Transformers, vLLM and SGLang */
  readonly architectures: readonly string[];
  readonly settings: readonly SettingKey[];
  readonly only: readonly OnlyKey[];
  readonly unread: readonly UnreadKeys[];
  /** keys for which Transformers refuses `null` */
  readonly nullRefused: readonly string[];
  /** keys of settings that the family reads by code of its own */
  readonly others?: readonly string[];
}

const INDEX = "model.safetensors.index.json";

export class ConfigJson {
  /** every key of the tables */
  readonly known: ReadonlySet<string>;
  readonly tables: ConfigTables;
  /** keys of settings, and keys that must have one value */
  readonly #compared: ReadonlySet<string>;
  readonly #unread: ReadonlySet<string>;

  constructor(tables: ConfigTables) {
    this.tables = tables;
    const { settings, only, unread, others = [] } = tables;
    this.#compared = new Set([
      ...settings.flatMap((row) => keysOf(row).map(({ key }) => key)),
      ...only.map(({ key }) => key),
      ...others,
    ]);
    this.#unread = new Set(unread.flatMap(({ keys }) => keys));
    this.known = new Set([...this.#compared, ...this.#unread]);
  }

  /**
   * The value of a setting in the config; without a key, the default of Transformers; undefined if it has no default.
   *
   * @throws CONFIG_INVALID for an impossible value, for keys of the setting that disagree, and for a key that Transformers
   *   ignores although its default is another value
   */
  read(config: Config, name: string): unknown {
    const row = this.#row(name);
    const { key, absent } = row;
    if (config[key] === null && absent !== undefined && row.nullable !== true)
      invalidKeyError(
        `${key} is null, which Transformers refuses; leave it out for ${canonicalJson(absent)}`,
      );
    const present = keysOf(row)
      .filter((other) => hasValue(config, other.key))
      .map((other) => ({ ...other, means: parse(config, other.key, other.value ?? row.value) }));
    const [first] = present;
    if (first === undefined) return absent;
    const unlike = present.find(({ means }) => canonicalJson(means) !== canonicalJson(first.means));
    if (unlike !== undefined) {
      const [text, otherText] = [first, unlike].map(({ key, means }) => `${key} is ${canonicalJson(means)}`);
      const message = `${otherText}, but ${text}: both are keys of one setting, and engines differ in which they read`;
      const next = "keep the correct key, and remove the other or give it the same value";
      throw new IsologitError("CONFIG_INVALID", message, { file: "config.json" }, { next });
    }
    const isRead = present.some(({ ignored }) => ignored !== true);
    if (!isRead && canonicalJson(first.means) !== canonicalJson(absent))
      invalidKeyError(
        `${first.key} is ${canonicalJson(first.means)}, but ${key} is absent: Transformers reads only that key and uses its default ${canonicalJson(absent)}`,
      );
    return first.means;
  }

  /** Like `read`, for a number that the model needs. */
  need(config: Config, name: string): number {
    // every setting that callers need is a number in the tables
    return (
      (this.read(config, name) as number | undefined) ?? invalidKeyError(`${this.#row(name).key} is missing`)
    );
  }

  /** Findings: keys that are in no table, and values that some engines refuse or read as another class. */
  remarks(config: Config): readonly KeyRemark[] {
    const { architectures: known, nullRefused } = this.tables;
    const remarks = [...remarkUnknown(config, this.known)];
    const nulls = Object.keys(config).filter((key) => config[key] === null && nullRefused.includes(key));
    if (nulls.length > 0) {
      const message = `Transformers 5 refuses null for ${nulls.join(", ")}; such a key can be left out`;
      remarks.push({ rule: "config-null", severity: "warning", message });
    }
    const { architectures } = config;
    if (Array.isArray(architectures) && !architectures.some((name) => known.includes(name))) {
      const message = `architectures is ${canonicalJson(architectures)}: vLLM and SGLang choose the class by it; the class of this model is ${known.join(" or ")}`;
      remarks.push({ rule: "architectures-other", severity: "warning", message });
    }
    return remarks;
  }

  /** @throws UNSUPPORTED for a key whose value changes the function */
  refuseOtherValues(config: Config, has: (where: Where | undefined) => boolean = () => true): void {
    refuseOtherValues(config, this.tables.only, has, { file: "config.json" });
  }

  isSettingKey(key: string): boolean {
    return this.#compared.has(key);
  }

  isUnreadKey(key: string): boolean {
    return this.#unread.has(key) && !this.#compared.has(key);
  }

  /** The first key of a setting. */
  keyOf(setting: string): string | undefined {
    return this.tables.settings.find((row) => row.setting === setting)?.key;
  }

  #row(name: string): SettingKey {
    return this.tables.settings.find(({ setting }) => setting === name)!; // callers pass only names of the table
  }
}

/** @throws CONFIG_INVALID if Transformers would load another file than those that were read */
export function refuseOtherWeights(config: Config, files: readonly string[]): void {
  const named = config[WEIGHTS_KEY];
  if (named === undefined || named === null) return;
  const read = files.length === 1 ? files[0] : INDEX;
  if (named === read || (named === INDEX && !files.includes("model.safetensors"))) return;
  const next = `remove ${WEIGHTS_KEY}, or keep in the folder only the weights that it names, as model.safetensors`;
  throw new IsologitError(
    "CONFIG_INVALID",
    `${WEIGHTS_KEY} is ${canonicalJson(named)}, which Transformers loads; the weights that are read here are ${read}`,
    { file: "config.json" },
    { next },
  );
}

export function invalidKeyError(message: string): never {
  throw new IsologitError("CONFIG_INVALID", message, { file: "config.json" });
}

function keysOf({ key, source, others = [] }: SettingKey): readonly OtherKey[] {
  return [{ key, source }, ...others];
}

function hasValue(config: Config, key: string): boolean {
  return config[key] !== undefined && config[key] !== null;
}

function parse(config: Config, key: string, value: SettingKey["value"]): unknown {
  const setting = value.read(config[key]);
  if (setting !== undefined) return setting;
  return invalidKeyError(`${key} is ${JSON.stringify(config[key])}, expected ${value.expected}`);
}
