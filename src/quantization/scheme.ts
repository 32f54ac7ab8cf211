/** A `quantization_config` of any tool, in one form: which modules are FP8, and how their scales are stored. */
import { isJsonObject } from "../core/json.ts";
import { oddFields, unknownFields } from "./fields.ts";
import type { Patterns } from "./module-patterns.ts";

/** How activations are quantised: not at all, by a scale computed in each pass, or by a stored scale. */
export type Activations = "none" | "dynamic" | "static";

export interface Group {
  /** names and patterns of modules, or classes; null: every linear module */
  readonly targets: readonly string[] | null;
  /** null if not given */
  readonly bits: number | null;
  readonly type: string | null;
  /** "tensor", "channel", "block" …; null if not given */
  readonly strategy: string | null;
  readonly activations: Activations | null;
  /** other fields with values that no engine reads as eight bits of float with these scales */
  readonly odd: readonly string[];
}

export interface Scheme {
  /** null if not given */
  readonly method: string | null;
  readonly algorithm: string | null;
  readonly groups: readonly Group[];
  /** modules that are not quantised */
  readonly ignored: readonly string[];
  /** unknown keys */
  readonly unknown: readonly string[];
}

/** The format that recasts to E5M2 name. No engine reads it, so the config names no method. */
export const OWN_E5M2 = "isologit-fp8-e5m2";

const LISTS = ["ignore", "ignored_layers", "exclude_modules", "modules_to_not_convert"] as const;

/** Class name by which groups and lists mean all linear modules. */
const LINEAR = "Linear";

/** @returns null if one of the lists is not a list of names */
export function schemeOf(record: Readonly<Record<string, unknown>>): Scheme | null {
  const lists = LISTS.map((key) => record[key]).filter((list) => list !== undefined && list !== null);
  if (!lists.every(isNames)) return null;
  const method = textOf(record.quant_method);
  const algorithm = textOf(record.quant_algo);
  const groups = groupsOf(record, method, algorithm);
  return groups === null
    ? null
    : { method, algorithm, groups, ignored: lists.flat(), unknown: unknownFields(record, method) };
}

function groupsOf(
  record: Readonly<Record<string, unknown>>,
  method: string | null,
  algorithm: string | null,
): readonly Group[] | null {
  const all = { targets: null, bits: 8, type: "float", strategy: null, activations: null, odd: [] };
  if (isJsonObject(record.config_groups)) {
    const groups = Object.values(record.config_groups).map((group) =>
      isJsonObject(group) ? groupOf(group) : null,
    );
    return groups.every((group) => group !== null) ? groups : null;
  }
  if (method === "compressed-tensors") return [];
  if (method === "fp8") {
    const blocks = Array.isArray(record.weight_block_size);
    const activations = record.activation_scheme === "static" ? "static" : "dynamic";
    return [{ ...all, strategy: blocks ? "block" : "tensor", activations }];
  }
  if (method === "modelopt" && algorithm === "FP8")
    return [{ ...all, strategy: "tensor", activations: "static" }];
  if (method === "modelopt" && algorithm === "FP8_PER_CHANNEL_PER_TOKEN")
    return [{ ...all, strategy: "channel", activations: "dynamic" }];
  return [all];
}

function groupOf(group: Readonly<Record<string, unknown>>): Group | null {
  const weights = isJsonObject(group.weights) ? group.weights : {};
  const inputs = isJsonObject(group.input_activations) ? group.input_activations : null;
  if (!isNames(group.targets)) return null;
  return {
    targets: group.targets,
    bits: typeof weights.num_bits === "number" ? weights.num_bits : null,
    type: textOf(weights.type),
    strategy: textOf(weights.strategy),
    activations: inputs === null ? "none" : inputs.dynamic === false ? "static" : "dynamic",
    odd: oddFields(group),
  };
}

/**
 * The groups that name a linear module, whether it is ignored or not: by its name, else by its class. If there are several,
 * engines differ in which group they use.
 */
export function groupsFor({ groups }: Scheme, module: string, { matches }: Patterns): readonly Group[] {
  const byName = groups.filter(({ targets }) => targets?.some((target) => matches(target, module)));
  if (byName.length > 0) return byName;
  return groups.filter(({ targets }) => targets === null || targets.includes(LINEAR));
}

/** A list may also contain the name of a class: Transformers accepts it, vLLM does not. */
export function isIgnored({ ignored }: Scheme, module: string, { matches }: Patterns): boolean {
  return ignored.some((pattern) => pattern === LINEAR || matches(pattern, module));
}

function textOf(value: unknown): string | null {
  return typeof value === "string" ? value : null;
}

function isNames(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((name) => typeof name === "string");
}
