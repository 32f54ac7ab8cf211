/** Reads the settings from a record of Megatron-Bridge's `FalconH1ModelProvider`. */
import { canonicalJson } from "../../../core/hash.ts";
import type { ObservedFacts, ParsedConfig } from "../../dialect.ts";
import { refuseOtherValues, unsupportedKeyError } from "../../parts/config-keys.ts";
import { invalidRecordError } from "../../parts/gpt/errors.ts";
import { vocabularyOf } from "../../parts/gpt/read.ts";
import { count, type KeyValue, positive } from "../../parts/key-values.ts";
import { refuseExcess } from "../../parts/limits.ts";
import { MIXER_EPSILON } from "../../parts/megatron/mamba-rules.ts";
import type { RotarySettings } from "../../parts/rotary.ts";
import type { Config, Settings } from "../../structure.ts";
import { DEFAULTS, FIELDS, isProvider } from "./fields.ts";
import { FIXED_KEYS } from "./keys.ts";
import { OLD_NORM } from "./rules.ts";

/** Whether a record is one of this class. Its fields decide nothing: they have the same names in records of other models. */
export const isFalconRecord = ({ model_type, _target_ }: Config): boolean =>
  model_type === undefined && isProvider(_target_);

/** @throws CONFIG_INVALID, UNSUPPORTED; both name the key */
export function readRecord(config: Config, facts: ObservedFacts): ParsedConfig {
  refuseOtherValues(config, FIXED_KEYS, () => true);
  refuseOtherActivation(config);
  const layers = read(config, "num_layers", count);
  refuseExcess(2 * layers, 0);
  refuseOtherPattern(config, layers);
  const notes: string[] = [];
  const settings: Record<string, Settings[string]> = {
    pattern: "H-".repeat(layers),
    vocab: vocabularyOf(config, facts, notes),
    ...Object.fromEntries(
      FIELDS.map(({ setting, key, value, absent }) => [setting, read<number>(config, key, value, absent)]),
    ),
    // Bridge maps no biases, and its model has none
    ...{ attentionBias: false, mlpBias: false, projectorsBias: false, mambaProjBias: false },
    ...{ dtMin: 0, dtMax: "Infinity" }, // Megatron has no key for limits of time steps
  };
  const of = (name: string) => Number(settings[name]);
  settings.kvHeads = readOr(config, "num_query_groups", of("heads"));
  settings.headDim = readOr(config, "kv_channels", of("hidden") / of("heads"));
  const expand = readOr(config, "expand", DEFAULTS.expand);
  settings.mambaHeads = readOr(
    config,
    "mamba_num_heads",
    Math.floor((expand * of("hidden")) / of("mambaHeadDim")),
  );
  refuseUneven("num_attention_heads", of("heads"), "num_query_groups", of("kvHeads"));
  refuseUneven("mamba_num_heads", of("mambaHeads"), "mamba_num_groups", of("groups"));
  if (settings.mambaRmsNorm === true) {
    settings.normBeforeGate = false;
    if (settings.eps !== MIXER_EPSILON) settings.mixerEps = MIXER_EPSILON;
  }
  notes.push(...notesOn(settings, facts));
  const passthrough = Object.entries({ maxPositions: "seq_length", chunk: "chunk_size", expand: "expand" })
    .filter(([, key]) => typeof config[key] === "number")
    .map(([name, key]) => [name, Number(config[key])]);
  return {
    settings: { ...settings, ...readRotary(config, of("headDim")) },
    passthrough: Object.fromEntries(passthrough),
    notes,
  };
}

/**
 * Releases of Bridge before July 2026 have the norm inside both projections and multiplied their input before it, where the
 * norm cancels a multiplier. Config.json cannot say that function; the weights are those of the model as Transformers runs it.
 */
function notesOn(
  { ssmInMultiplier, attentionInMultiplier }: Settings,
  facts: ObservedFacts,
): readonly string[] {
  const isOld = facts.tensors.some(({ name }) => name.endsWith(OLD_NORM));
  if (!isOld || (ssmInMultiplier === 1 && attentionInMultiplier === 1)) return [];
  return [
    "an older release of Megatron-Bridge wrote this checkpoint: it ran the model without ssm_in_multiplier and attention_in_multiplier, which are used here, as Transformers and newer releases use them",
  ];
}

/** The value of a key; `absent` where the record has no such key. */
function read<Value = number>(config: Config, key: string, value: KeyValue, absent?: unknown): Value {
  const given = config[key] === undefined ? absent : config[key];
  if (given === undefined) throw invalidRecordError(`${key} is missing`);
  const setting = value.read(given);
  if (setting === undefined)
    throw invalidRecordError(`${key} is ${canonicalJson(given)}, expected ${value.expected}`);
  return setting as Value; // the caller names the type that `value` allows
}

/** A count that the class computes where the record has null. */
const readOr = (config: Config, key: string, computed: number): number =>
  read({ ...config, [key]: config[key] ?? computed }, key, count);

/** The class computes positions of whole heads, with linear scaling alone. */
function readRotary(config: Config, headDim: number): RotarySettings {
  if (headDim % 2 !== 0) throw invalidRecordError(`kv_channels is ${headDim}, an odd number to rotate`);
  const shared = {
    rotary: headDim,
    ropeTheta: read(config, "rotary_base", positive, DEFAULTS.rotaryBase),
  };
  const factor = config.seq_len_interpolation_factor ?? 1;
  if (factor === 1) return { ...shared, ropeScaling: "none" };
  const ropeFactor = read(config, "seq_len_interpolation_factor", positive);
  return { ...shared, ropeScaling: "linear", ropeFactor };
}

/** Without the key Megatron uses gelu. */
function refuseOtherActivation({ activation_func: given }: Config): void {
  const named = given !== null && typeof given === "object" && "_target_" in given ? given._target_ : given;
  if (typeof named === "string" && /(^|\.)(silu|swish)$/i.test(named)) return;
  const found = given === undefined ? "absent, which means gelu" : canonicalJson(given);
  throw unsupportedKeyError(
    `activation_func is ${found}: it changes the activation of MLPs`,
    "activation_func",
    "torch.nn.functional.silu",
    {},
  );
}

/** A pattern has a `P` for each layer with both mixers. */
function refuseOtherPattern({ hybrid_override_pattern: pattern = null }: Config, layers: number): void {
  if (pattern === null || pattern === "P".repeat(layers)) return;
  throw unsupportedKeyError(
    `hybrid_override_pattern is ${canonicalJson(pattern)}: it gives some layers one mixer only`,
    "hybrid_override_pattern",
    null,
    {},
  );
}

function refuseUneven(key: string, many: number, divisor: string, few: number): void {
  if (many % few === 0) return;
  throw invalidRecordError(`${key} is ${many}, which is not a multiple of ${divisor}, ${few}`);
}
