/** The groups of modules that a `quantization_config` describes, in one form for all dialects. */
import { isJsonObject } from "../core/json.ts";
import { oddFields } from "./fields.ts";
import type { Expressions } from "./module-patterns.ts";

/** How activations are quantised: not at all, by a scale computed in each pass, or by a stored scale. */
export type Activations = "none" | "dynamic" | "static";

/** How codes and scales are stored: E4M3 with float scales; E4M3 or E2M1 in blocks of a row, with scales of 8 bits. */
export type Encoding = "FP8" | "MXFP8" | "NVFP4";

export interface Group {
  /** names and expressions of modules, or classes; null: every linear module */
  readonly targets: readonly string[] | null;
  /** null: the config does not say, or says another encoding: `bits` and `type` then tell */
  readonly encoding: Encoding | null;
  /** null if not given */
  readonly bits: number | null;
  readonly type: string | null;
  /** of FP8, which weights share a scale: "tensor", "channel", "block" …; null if not given */
  readonly strategy: string | null;
  /** rows and columns of a block; null if no size is given */
  readonly block: readonly [rows: number, columns: number] | null;
  readonly activations: Activations | null;
  /** other fields with values that no engine reads as plain codes with these scales */
  readonly odd: readonly string[];
}

type QuantizationRecord = Readonly<Record<string, unknown>>;

const FP8: Group = {
  targets: null,
  encoding: "FP8",
  bits: 8,
  type: "float",
  strategy: null,
  block: null,
  activations: null,
  odd: [],
};
const MXFP8: Group = { ...FP8, encoding: "MXFP8", activations: "dynamic" };
const NVFP4: Group = { ...FP8, encoding: "NVFP4", bits: 4, activations: "static" };

/** ModelOpt's algorithms. Names are in upper case; ModelOpt writes some of them in lower case. */
const ALGORITHMS: Readonly<Record<string, Group>> = {
  FP8: { ...FP8, strategy: "tensor", activations: "static" },
  FP8_PER_CHANNEL_PER_TOKEN: { ...FP8, strategy: "channel", activations: "dynamic" },
  FP8_PB_WO: { ...FP8, strategy: "block", block: [128, 128], activations: "none" },
  MXFP8,
  NVFP4,
  W4A16_NVFP4: { ...NVFP4, activations: "none" },
};

/** Whether weights are codes with scales under this algorithm of ModelOpt. */
export function isKnownAlgorithm(algorithm: string): boolean {
  return algorithm.toUpperCase() in ALGORITHMS || /^(FP8|MXFP8|W4A8|NVFP4|MIXED_PRECISION)/i.test(algorithm);
}

/** @returns null if a list of targets, or the map of layers, is not as its dialect writes it */
export function groupsOf(
  record: QuantizationRecord,
  method: string | null,
  algorithm: string | null,
): readonly Group[] | null {
  const whole = ALGORITHMS[algorithm?.toUpperCase() ?? ""];
  if (method === "modelopt" && isJsonObject(record.quantized_layers)) {
    return groupsOfLayers(record.quantized_layers);
  }
  if (isJsonObject(record.config_groups)) {
    const groups = Object.values(record.config_groups).map((group) =>
      isJsonObject(group) ? groupOf(group, method === "modelopt" ? whole : undefined) : null,
    );
    return groups.every((group) => group !== null) ? groups : null;
  }
  if (method === "compressed-tensors") return [];
  if (method === "fp8") return [groupOfFp8(record)];
  if (method === "mxfp8") return [MXFP8];
  if (method === "modelopt" && whole !== undefined) return [whole];
  return [{ ...FP8, encoding: null, bits: null, type: null }]; // a method whose groups are not known
}

/** ModelOpt's map from modules to algorithms, by algorithm. Modules that it does not name are not quantised. */
function groupsOfLayers(layers: QuantizationRecord): readonly Group[] | null {
  const targets = new Map<string, string[]>();
  for (const [module, layer] of Object.entries(layers)) {
    if (!isJsonObject(layer) || typeof layer.quant_algo !== "string") return null;
    const algorithm = layer.quant_algo.toUpperCase();
    const modules = targets.get(algorithm);
    if (modules === undefined) targets.set(algorithm, [module]);
    else modules.push(module);
  }
  return [...targets].map(([algorithm, modules]) => ({
    ...(ALGORITHMS[algorithm] ?? { ...FP8, encoding: null, bits: null, type: algorithm }),
    targets: modules,
  }));
}

function groupOfFp8(record: QuantizationRecord): Group {
  const size = record.weight_block_size;
  const block = isPair(size) ? size : null;
  const activations = record.activation_scheme === "static" ? "static" : "dynamic";
  return { ...FP8, strategy: Array.isArray(size) ? "block" : "tensor", block, activations };
}

/** @param whole what ModelOpt's algorithm says of every group, because its groups name bits alone */
function groupOf(group: QuantizationRecord, whole: Group | undefined): Group | null {
  const weights = isJsonObject(group.weights) ? group.weights : {};
  const inputs = isJsonObject(group.input_activations) ? group.input_activations : null;
  if (!isNames(group.targets)) return null;
  const strategy = textOf(weights.strategy);
  return {
    targets: group.targets,
    encoding: whole?.encoding ?? encodingOf(weights),
    bits: typeof weights.num_bits === "number" ? weights.num_bits : null,
    type: textOf(weights.type),
    strategy: strategy ?? whole?.strategy ?? null,
    block: isPair(weights.block_structure) ? weights.block_structure : (whole?.block ?? null),
    // "local" computes the scales of blocks in each pass, below one stored scale
    activations: inputs === null ? "none" : inputs.dynamic === true ? "dynamic" : "static",
    odd: oddFields(group),
  };
}

function encodingOf({
  num_bits: bits,
  type,
  strategy,
  group_size: size,
}: QuantizationRecord): Encoding | null {
  if (type !== "float") return null;
  if (bits === 4 && size === 16) return "NVFP4";
  if (bits === 8) return strategy === "group" && size === 32 ? "MXFP8" : "FP8";
  return null;
}

/** Class name by which groups and lists mean all linear modules. */
export const LINEAR = "Linear";

/**
 * The function that returns the groups that name a linear module, whether it is ignored or not: by its name, else by its
 * class. If there are several, engines differ in which group they use.
 *
 * @param namesOf all names of a module
 */
export function createGroupFinder(
  groups: readonly Group[],
  namesOf: (module: string) => readonly string[],
  expressions: Expressions,
): (module: string) => readonly Group[] {
  const byName = new Map<string, Group[]>();
  const byExpression: [expression: string, group: Group][] = [];
  for (const group of groups) {
    for (const target of group.targets ?? []) {
      if (target.startsWith("re:")) byExpression.push([target.slice(3), group]);
      else byName.set(target, [...(byName.get(target) ?? []), group]);
    }
  }
  const byClass = groups.filter(({ targets }) => targets === null || targets.includes(LINEAR));
  return (module) => {
    const names = namesOf(module);
    const named = [
      ...names.flatMap((name) => byName.get(name) ?? []),
      ...byExpression
        .filter(([expression]) => names.some((name) => expressions.matchesStart(expression, name)))
        .map(([, group]) => group),
    ];
    return named.length > 0 ? [...new Set(named)] : byClass;
  };
}

export function isNames(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((name) => typeof name === "string");
}

function isPair(value: unknown): value is readonly [number, number] {
  return Array.isArray(value) && value.length === 2 && value.every(Number.isSafeInteger);
}

export function textOf(value: unknown): string | null {
  return typeof value === "string" ? value : null;
}
