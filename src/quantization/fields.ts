/**
 * Fields of a `quantization_config` that say how codes are stored and computed with, and the values under which engines
 * read FP8 codes as code * scale. Read in compressed-tensors 0.17 (`quant_args.py`, `quant_config.py`) and in vLLM's
 * `compressed_tensors.py`, which refuses other values or computes another function.
 */
import { isJsonObject } from "../core/json.ts";

type Said = Readonly<Record<string, unknown>>;

interface Field {
  readonly key: string;
  /** besides a field that is absent or null */
  readonly usual: (value: unknown) => boolean;
}

const never = () => false;
const isNo = (value: unknown) => value === false;
const isEmpty = (value: unknown) => isJsonObject(value) && Object.keys(value).length === 0;

/** Codes and scales as they are, whatever a scale is of; each group of `mixed-precision` says its own. */
const FORMATS: readonly unknown[] = [
  ...["float-quantized", "naive-quantized", "mxfp8-quantized"],
  "mixed-precision",
];
const isFormat = (value: unknown) => FORMATS.includes(value);
const FORMAT: Field = { key: "format", usual: isFormat };

const WEIGHTS: readonly Field[] = [
  { key: "symmetric", usual: (value) => value === true },
  { key: "dynamic", usual: isNo },
  { key: "actorder", usual: isNo },
];

const INPUTS: readonly Field[] = [
  { key: "num_bits", usual: (value) => value === 8 },
  { key: "type", usual: (value) => value === "float" },
  { key: "symmetric", usual: (value) => value === true },
];

const GROUP: readonly Field[] = [FORMAT, { key: "output_activations", usual: never }];

const HEAD: readonly Field[] = [
  FORMAT,
  { key: "quantization_status", usual: (value) => value === "compressed" || value === "frozen" },
  {
    key: "sparsity_config",
    usual: (value) => isEmpty(value) || (isJsonObject(value) && value.format === "dense"),
  },
  { key: "transform_config", usual: isEmpty },
];

/** What a group says of its modules, apart from bits, type, strategy and whether activations are dynamic. */
export function oddFields(group: Said): readonly string[] {
  const { weights, input_activations: inputs } = group;
  return [
    ...oddIn(group, GROUP, ""),
    ...(isJsonObject(weights) ? oddIn(weights, WEIGHTS, "weights.") : []),
    ...(isJsonObject(inputs) ? oddIn(inputs, INPUTS, "input_activations.") : []),
  ];
}

/** As `oddFields`, of what is said of all modules, by compressed-tensors alone. */
export function oddHead(said: Said): readonly string[] {
  return oddIn(said, HEAD, "");
}

function oddIn(said: Said, fields: readonly Field[], prefix: string): readonly string[] {
  return fields
    .filter(({ key, usual }) => said[key] !== undefined && said[key] !== null && !usual(said[key]))
    .map(({ key }) => `${prefix}${key} is ${JSON.stringify(said[key])}`);
}

const OWN = {
  head: ["quant_method", "config_groups", "ignore", "kv_cache_scheme", "global_compression_ratio", "version"],
  group: ["targets", "weights", "input_activations"],
  tensors: [
    ...["num_bits", "type", "symmetric", "group_size", "strategy", "block_structure", "dynamic", "actorder"],
    ...["observer", "observer_kwargs", "scale_dtype", "zp_dtype"],
  ],
};

/** Keys of compressed-tensors that no table has; other methods have too many dialects to tell. */
export function unknownFields(said: Said, method: string | null): readonly string[] {
  if (method !== "compressed-tensors" || !isJsonObject(said.config_groups)) return [];
  const groups = Object.entries(said.config_groups).flatMap(([name, group]) => {
    if (!isJsonObject(group)) return [];
    const tensors = ["weights", "input_activations"].flatMap((part) => {
      const value = group[part];
      return isJsonObject(value) ? beyond(value, OWN.tensors, `${name}.${part}.`) : [];
    });
    return [...beyond(group, [...OWN.group, ...GROUP.map(({ key }) => key)], `${name}.`), ...tensors];
  });
  return [...beyond(said, [...OWN.head, ...HEAD.map(({ key }) => key)], ""), ...groups];
}

function beyond(said: Said, known: readonly string[], prefix: string): readonly string[] {
  return Object.keys(said)
    .filter((key) => !known.includes(key) && said[key] !== null)
    .map((key) => prefix + key);
}
