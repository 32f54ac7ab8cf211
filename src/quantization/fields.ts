/**
 * Fields of a `quantization_config` that change how codes are stored or computed, and the values with which engines read
 * FP8 codes as code * scale. Source: compressed-tensors 0.17 (`quant_args.py`, `quant_config.py`) and vLLM's
 * `compressed_tensors.py`, which refuses other values or computes another function.
 */
import { isJsonObject } from "../core/json.ts";

type QuantizationRecord = Readonly<Record<string, unknown>>;

interface Field {
  readonly key: string;
  /** whether a value is usual; an absent field and null always are */
  readonly usual: (value: unknown) => boolean;
}

const never = () => false;
const isNo = (value: unknown) => value === false;
const isEmpty = (value: unknown) => isJsonObject(value) && Object.keys(value).length === 0;

/** Formats of codes and scales that are read, for any extent of a scale; with `mixed-precision` each group has its own format. */
const FORMATS: readonly unknown[] = [
  ...["float-quantized", "naive-quantized", "mxfp8-quantized", "nvfp4-pack-quantized"],
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

/** Unusual fields of a group, apart from bits, type, strategy and whether activations are dynamic. */
export function oddFields(group: QuantizationRecord): readonly string[] {
  const { weights, input_activations: inputs } = group;
  return [
    ...oddIn(group, GROUP, ""),
    ...(isJsonObject(weights) ? oddIn(weights, WEIGHTS, "weights.") : []),
    ...(isJsonObject(inputs) ? oddIn(inputs, [inputBits(weights), ...INPUTS], "input_activations.") : []),
  ];
}

/** Activations have eight bits; those of NVFP4 have four, as its weights. */
function inputBits(weights: unknown): Field {
  const isFour = isJsonObject(weights) && weights.num_bits === 4;
  return { key: "num_bits", usual: (value) => value === 8 || (isFour && value === 4) };
}

/** Unusual fields for all modules; only compressed-tensors has such fields. */
export function oddHead(record: QuantizationRecord): readonly string[] {
  return oddIn(record, HEAD, "");
}

function oddIn(record: QuantizationRecord, fields: readonly Field[], prefix: string): readonly string[] {
  return fields
    .filter(({ key, usual }) => record[key] !== undefined && record[key] !== null && !usual(record[key]))
    .map(({ key }) => `${prefix}${key} is ${JSON.stringify(record[key])}`);
}

const OWN = {
  head: ["quant_method", "config_groups", "ignore", "kv_cache_scheme", "global_compression_ratio", "version"],
  group: ["targets", "weights", "input_activations"],
  tensors: [
    ...["num_bits", "type", "symmetric", "group_size", "strategy", "block_structure", "dynamic", "actorder"],
    ...["observer", "observer_kwargs", "scale_dtype", "zp_dtype"],
  ],
};

/** Unknown keys of compressed-tensors; other methods have too many variants for a list of known keys. */
export function unknownFields(record: QuantizationRecord, method: string | null): readonly string[] {
  if (method !== "compressed-tensors" || !isJsonObject(record.config_groups)) return [];
  const groups = Object.entries(record.config_groups).flatMap(([name, group]) => {
    if (!isJsonObject(group)) return [];
    const tensors = ["weights", "input_activations"].flatMap((part) => {
      const value = group[part];
      return isJsonObject(value) ? keysBeyond(value, OWN.tensors, `${name}.${part}.`) : [];
    });
    return [...keysBeyond(group, [...OWN.group, ...GROUP.map(({ key }) => key)], `${name}.`), ...tensors];
  });
  return [...keysBeyond(record, [...OWN.head, ...HEAD.map(({ key }) => key)], ""), ...groups];
}

function keysBeyond(record: QuantizationRecord, known: readonly string[], prefix: string): readonly string[] {
  return Object.keys(record)
    .filter((key) => !known.includes(key) && record[key] !== null)
    .map((key) => prefix + key);
}
