/** Reads config.json as Transformers reads it, by the tables of keys. */
import { IsologitError } from "../../../core/errors.ts";
import { canonicalJson } from "../../../core/hash.ts";
import type { KeyRemark } from "../../dialect.ts";
import type { Config } from "../../structure.ts";
import { remarkUnknown } from "../config-keys.ts";
import { NULL_REFUSED, ONLY_KEYS, UNREAD_KEYS, WEIGHTS_KEY } from "./other-keys.ts";
import { type Other, SETTING_KEYS, type SettingKey } from "./setting-keys.ts";

/** The class of this family in Transformers, vLLM and SGLang. */
const ARCHITECTURE = "NemotronHForCausalLM";
const INDEX = "model.safetensors.index.json";

/**
 * The value of a setting in the config; without a key, the default of Transformers; undefined if it has no default.
 *
 * @throws CONFIG_INVALID for an impossible value, for keys of the setting that disagree, and for a key that Transformers
 *   ignores although its default is another value
 */
export function readSetting(config: Config, name: string): unknown {
  const row = rowOf(name);
  const { key, absent } = row;
  if (config[key] === null && absent !== undefined && row.nullable !== true)
    invalidKeyError(`${key} is null, which Transformers refuses; leave it out for ${canonicalJson(absent)}`);
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

/** Like `readSetting`, for a setting that the model needs. */
export function needSetting(config: Config, name: string): number {
  const { key } = rowOf(name);
  // every setting that callers need is a number in the table
  return (readSetting(config, name) as number | undefined) ?? invalidKeyError(`${key} is missing`);
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

/** Findings: keys that are in no table, and values that some engines refuse or read as another class. */
export function remarksOn(config: Config): readonly KeyRemark[] {
  const remarks = [...remarkUnknown(config, KNOWN_KEYS)];
  const nulls = Object.keys(config).filter((key) => config[key] === null && NULL_REFUSED.includes(key));
  if (nulls.length > 0) {
    const message = `Transformers 5 refuses null for ${nulls.join(", ")}; such a key can be left out`;
    remarks.push({ rule: "config-null", severity: "warning", message });
  }
  const { architectures } = config;
  if (Array.isArray(architectures) && !architectures.includes(ARCHITECTURE)) {
    const message = `architectures is ${canonicalJson(architectures)}: vLLM and SGLang choose the class by it; the class of this model is ${ARCHITECTURE}`;
    remarks.push({ rule: "architectures-other", severity: "warning", message });
  }
  return remarks;
}

export function invalidKeyError(message: string): never {
  throw new IsologitError("CONFIG_INVALID", message, { file: "config.json" });
}

function rowOf(name: string): SettingKey {
  return SETTING_KEYS.find(({ setting }) => setting === name)!; // callers pass only names of the table
}

function keysOf({ key, source, others = [] }: SettingKey): readonly Other[] {
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

/** Keys of settings, and keys that must have one value. */
const COMPARED: ReadonlySet<string> = new Set([
  ...SETTING_KEYS.flatMap((row) => keysOf(row).map(({ key }) => key)),
  ...ONLY_KEYS.map(({ key }) => key),
]);

export function isSettingKey(key: string): boolean {
  return COMPARED.has(key);
}

const UNREAD: ReadonlySet<string> = new Set(UNREAD_KEYS.flatMap(({ keys }) => keys));

export function isUnreadKey(key: string): boolean {
  return UNREAD.has(key) && !COMPARED.has(key);
}

/** Every key of the tables. */
export const KNOWN_KEYS: ReadonlySet<string> = new Set([...COMPARED, ...UNREAD]);
