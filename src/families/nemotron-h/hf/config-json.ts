/** What a config.json says, read as Transformers reads it: by the tables of keys. */

import { IsologitError } from "../../../core/errors.ts";
import { canonicalJson } from "../../../core/hash.ts";
import type { KeyRemark } from "../../dialect.ts";
import type { Config } from "../../structure.ts";
import { remarkUnknown } from "../config-keys.ts";
import { NULL_REFUSED, ONLY_KEYS, UNREAD_KEYS, WEIGHTS_KEY } from "./other-keys.ts";
import { type Other, SETTING_KEYS, type SettingKey } from "./setting-keys.ts";

/** The class that Transformers, vLLM and SGLang know this family by. */
const ARCHITECTURE = "NemotronHForCausalLM";
const INDEX = "model.safetensors.index.json";

/**
 * A setting as the config says it; what Transformers takes where no key says it; undefined where it takes nothing.
 *
 * @throws CONFIG_INVALID for a value that is none, for keys of the setting that disagree, and for one that Transformers
 *   does not read where it would take another value
 */
export function readSetting(config: Config, name: string): unknown {
  const row = rowOf(name);
  const { key, absent } = row;
  if (config[key] === null && absent !== undefined && row.nullable !== true)
    invalidKeyError(`${key} is null, which Transformers refuses; leave it out for ${canonicalJson(absent)}`);
  const said = keysOf(row)
    .filter((one) => isSaid(config, one.key))
    .map((one) => ({ ...one, means: parse(config, one.key, one.value ?? row.value) }));
  const [first] = said;
  if (first === undefined) return absent;
  const unlike = said.find(({ means }) => canonicalJson(means) !== canonicalJson(first.means));
  if (unlike !== undefined) {
    const [one, other] = [first, unlike].map((it) => `${it.key} says ${canonicalJson(it.means)}`);
    const message = `${other}, but ${one}: both are keys of one setting, and engines differ in which they read`;
    const next = "keep the key that is right, and remove the other or make it agree";
    throw new IsologitError("CONFIG_INVALID", message, { file: "config.json" }, { next });
  }
  const isRead = said.some(({ ignored }) => ignored !== true);
  if (!isRead && canonicalJson(first.means) !== canonicalJson(absent))
    invalidKeyError(
      `${first.key} is ${canonicalJson(first.means)}, but ${key} is absent: Transformers reads no other key, and takes ${canonicalJson(absent)}`,
    );
  return first.means;
}

/** As `readSetting`, of a setting that the model needs. */
export function needSetting(config: Config, name: string): number {
  const { key } = rowOf(name);
  // the table gives every setting that is needed a number
  return (readSetting(config, name) as number | undefined) ?? invalidKeyError(`${key} is missing`);
}

/** @throws CONFIG_INVALID where Transformers would load another file than those that were read */
export function refuseOtherWeights(config: Config, files: readonly string[]): void {
  const said = config[WEIGHTS_KEY];
  if (said === undefined || said === null) return;
  const read = files.length === 1 ? files[0] : INDEX;
  if (said === read || (said === INDEX && !files.includes("model.safetensors"))) return;
  const next = `remove ${WEIGHTS_KEY}, or keep in the folder only the weights that it names, as model.safetensors`;
  throw new IsologitError(
    "CONFIG_INVALID",
    `${WEIGHTS_KEY} is ${canonicalJson(said)}, which Transformers loads; the weights that are read here are ${read}`,
    { file: "config.json" },
    { next },
  );
}

/** Keys that no table has, and what some engines refuse or read as another class. */
export function remarksOn(config: Config): readonly KeyRemark[] {
  const remarks = [...remarkUnknown(config, KNOWN)];
  const nulls = Object.keys(config).filter((key) => config[key] === null && NULL_REFUSED.includes(key));
  if (nulls.length > 0) {
    const message = `Transformers 5 refuses null for ${nulls.join(", ")}; a key that says nothing can be left out`;
    remarks.push({ rule: "config-null", severity: "warning", message });
  }
  const { architectures } = config;
  if (Array.isArray(architectures) && !architectures.includes(ARCHITECTURE)) {
    const message = `architectures is ${canonicalJson(architectures)}: vLLM and SGLang choose the model by it, and know this one as ${ARCHITECTURE}`;
    remarks.push({ rule: "architectures-other", severity: "warning", message });
  }
  return remarks;
}

export function invalidKeyError(message: string): never {
  throw new IsologitError("CONFIG_INVALID", message, { file: "config.json" });
}

function rowOf(name: string): SettingKey {
  return SETTING_KEYS.find(({ setting }) => setting === name)!; // its callers name rows of the table
}

function keysOf({ key, source, others = [] }: SettingKey): readonly Other[] {
  return [{ key, source }, ...others];
}

function isSaid(config: Config, key: string): boolean {
  return config[key] !== undefined && config[key] !== null;
}

function parse(config: Config, key: string, value: SettingKey["value"]): unknown {
  const parsed = value.safeParse(config[key]);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  return invalidKeyError(
    `${[key, ...issue.path].join(".")} is ${JSON.stringify(config[key])}; ${issue.message}`,
  );
}

/** Keys that say a setting, and keys that must have one value. */
const COMPARED: ReadonlySet<string> = new Set([
  ...SETTING_KEYS.flatMap((row) => keysOf(row).map(({ key }) => key)),
  ...ONLY_KEYS.map(({ key }) => key),
]);

export function isSettingKey(key: string): boolean {
  return COMPARED.has(key);
}

/** Every key that a table has. */
export const KNOWN: ReadonlySet<string> = new Set([...COMPARED, ...UNREAD_KEYS.flatMap(({ keys }) => keys)]);
