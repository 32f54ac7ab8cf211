/** What a `quantization_config` says, whichever tool wrote it: which modules are FP8, and how their scales are stored. */
import { isJsonObject } from "../core/json.ts";
import { oddFields, unknownFields } from "./fields.ts";
import type { Patterns } from "./module-patterns.ts";

/** How activations are quantised: not at all, by a scale of each pass, or by one that is stored. */
export type Activations = "none" | "dynamic" | "static";

export interface Group {
  /** names and patterns of modules, or classes; null: every linear module */
  readonly targets: readonly string[] | null;
  /** null where it is not said */
  readonly bits: number | null;
  readonly type: string | null;
  /** "tensor", "channel", "block" …; null where it is not said */
  readonly strategy: string | null;
  readonly activations: Activations | null;
  /** what else it says of its modules, and no engine reads as eight bits of float with these scales */
  readonly odd: readonly string[];
}

export interface Scheme {
  /** null: it names none */
  readonly method: string | null;
  readonly algorithm: string | null;
  readonly groups: readonly Group[];
  /** modules that are left alone */
  readonly ignored: readonly string[];
  /** keys that no table has */
  readonly unknown: readonly string[];
}

/** As recasts to E5M2 say it, which no engine reads and which therefore names no method. */
export const OWN_E5M2 = "isologit-fp8-e5m2";

const LISTS = ["ignore", "ignored_layers", "exclude_modules", "modules_to_not_convert"] as const;

/** The class of a linear module, by which groups and lists name all of them. */
const LINEAR = "Linear";

/** @returns null where one of the lists is no list of names */
export function schemeOf(said: Readonly<Record<string, unknown>>): Scheme | null {
  const lists = LISTS.map((key) => said[key]).filter((list) => list !== undefined && list !== null);
  if (!lists.every(isNames)) return null;
  const method = textOf(said.quant_method);
  const algorithm = textOf(said.quant_algo);
  const groups = groupsOf(said, method, algorithm);
  return groups === null
    ? null
    : { method, algorithm, groups, ignored: lists.flat(), unknown: unknownFields(said, method) };
}

function groupsOf(
  said: Readonly<Record<string, unknown>>,
  method: string | null,
  algorithm: string | null,
): readonly Group[] | null {
  const all = { targets: null, bits: 8, type: "float", strategy: null, activations: null, odd: [] };
  if (isJsonObject(said.config_groups)) {
    const groups = Object.values(said.config_groups).map((group) =>
      isJsonObject(group) ? groupOf(group) : null,
    );
    return groups.every((group) => group !== null) ? groups : null;
  }
  if (method === "compressed-tensors") return [];
  if (method === "fp8") {
    const blocks = Array.isArray(said.weight_block_size);
    const activations = said.activation_scheme === "static" ? "static" : "dynamic";
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
 * The groups that name a linear module, whether it is ignored or not: by its name, else by its class. Where several do,
 * engines differ in which they take.
 */
export function groupsFor({ groups }: Scheme, module: string, { matches }: Patterns): readonly Group[] {
  const byName = groups.filter(({ targets }) => targets?.some((target) => matches(target, module)));
  if (byName.length > 0) return byName;
  return groups.filter(({ targets }) => targets === null || targets.includes(LINEAR));
}

/** Transformers takes the name of a class in a list too, and vLLM does not. */
export function isIgnored({ ignored }: Scheme, module: string, { matches }: Patterns): boolean {
  return ignored.some((pattern) => pattern === LINEAR || matches(pattern, module));
}

function textOf(value: unknown): string | null {
  return typeof value === "string" ? value : null;
}

function isNames(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((name) => typeof name === "string");
}
