/** A `quantization_config` of any tool, in one form: which modules are quantised, and how their scales are stored. */
import { isJsonObject } from "../core/json.ts";
import { unknownFields } from "./fields.ts";
import { type Group, groupsOf, isNames, textOf } from "./groups.ts";

/** Keys under which tools list the modules that are not quantised. */
export const LIST_KEYS = ["ignore", "ignored_layers", "exclude_modules", "modules_to_not_convert"] as const;
export type ListKey = (typeof LIST_KEYS)[number];

export interface Scheme {
  /** null if not given */
  readonly method: string | null;
  readonly algorithm: string | null;
  readonly groups: readonly Group[];
  /** modules that are not quantised, by the key of the list */
  readonly lists: ReadonlyMap<ListKey, readonly string[]>;
  /** whether an FP8 KV cache is declared */
  readonly cache: boolean;
  /** unknown keys */
  readonly unknown: readonly string[];
}

/** The format that recasts to E5M2 name. No engine reads it, so the config names no method. */
export const OWN_E5M2 = "isologit-fp8-e5m2";

/** @returns null if one of the lists is not a list of names */
export function schemeOf(record: Readonly<Record<string, unknown>>): Scheme | null {
  const lists = new Map<ListKey, readonly string[]>();
  for (const key of LIST_KEYS) {
    const list = record[key];
    if (list === undefined || list === null) continue;
    if (!isNames(list)) return null;
    lists.set(key, list);
  }
  const method = textOf(record.quant_method);
  const algorithm = textOf(record.quant_algo);
  const groups = groupsOf(record, method, algorithm);
  if (groups === null) return null;
  return {
    method,
    algorithm,
    groups,
    lists,
    cache: isCached(record),
    unknown: unknownFields(record, method),
  };
}

/** config.json has a scheme of the cache, ModelOpt's file the name of an algorithm. */
function isCached({
  kv_cache_scheme: scheme,
  kv_cache_quant_algo: algorithm,
}: Record<string, unknown>): boolean {
  return isJsonObject(scheme) || textOf(algorithm)?.toUpperCase() === "FP8";
}

/** One text for each kind of weights that a scheme declares, and one for an FP8 KV cache. */
export function describeScheme({ groups, cache }: Scheme): readonly string[] {
  return [...new Set(groups.flatMap(describeGroup)), ...(cache ? ["FP8 KV cache"] : [])];
}

/** `FP8, one scale per block of 128 x 128, dynamic activations`; nothing for a group that says nothing of its codes. */
function describeGroup(group: Group): readonly string[] {
  const { encoding, bits, type, strategy, block, activations } = group;
  const codes = encoding ?? [bits === null ? [] : `${bits} bits`, type ?? []].flat().join(" of type ");
  if (codes === "") return [];
  const parts = [
    codes,
    encoding !== "FP8" || strategy === null
      ? []
      : `one scale per ${strategy}${block === null ? "" : ` of ${block[0]} x ${block[1]}`}`,
    activations === null ? [] : activations === "none" ? "weights alone" : `${activations} activations`,
  ];
  return [parts.flat().join(", ")];
}
