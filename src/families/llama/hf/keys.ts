/**
 * The keys of config.json for each model type: names, allowed values, and the defaults of Transformers, whose classes differ
 * in them. `parts/rotary.ts` reads the keys of rotary positions.
 */
import { ConfigJson, type SettingKey } from "../../parts/config-json.ts";
import type { OnlyKey, UnreadKeys } from "../../parts/config-keys.ts";
import { count, flag, type KeyValue, positive, valueThat, whole } from "../../parts/key-values.ts";
import { ROTARY_KEYS } from "../../parts/rotary.ts";
import { COMMON_ONLY_KEYS, COMMON_UNREAD_KEYS } from "../../parts/transformers-keys.ts";

const MODEL_TYPES = ["llama", "mistral", "qwen2", "qwen3"] as const;

export type ModelType = (typeof MODEL_TYPES)[number];

export function isModelType(name: unknown): name is ModelType {
  return MODEL_TYPES.some((type) => type === name);
}

/** Class in Transformers, vLLM and SGLang. */
export const ARCHITECTURES: Readonly<Record<ModelType, string>> = {
  llama: "LlamaForCausalLM",
  mistral: "MistralForCausalLM",
  qwen2: "Qwen2ForCausalLM",
  qwen3: "Qwen3ForCausalLM",
};

const configClass = (type: ModelType) => `transformers/models/${type}/configuration_${type}.py`;
const modelClass = (type: ModelType) => `transformers/models/${type}/modeling_${type}.py`;

/** Model types whose class has a key for biases of attention's four projections, or of the MLP's three. */
const ATTENTION_BIAS: readonly ModelType[] = ["llama", "qwen3"];
const MLP_BIAS: readonly ModelType[] = ["llama"];
/** Model types in which only some layers have a window. */
const PARTLY_SLIDING: readonly ModelType[] = ["qwen2", "qwen3"];

/** Kinds of attention in `layer_types`. */
const KINDS = valueThat(
  "a list of full_attention, sliding_attention",
  (value) => Array.isArray(value) && value.every((kind) => /^(full|sliding)_attention$/.test(kind)),
);

function settingKeys(type: ModelType): readonly SettingKey[] {
  const source = configClass(type);
  const row = (
    setting: string,
    key: string,
    value: KeyValue,
    more: Partial<SettingKey> = {},
  ): SettingKey => ({
    ...{ setting, key, source, value },
    ...more,
  });
  return [
    row("layers", "num_hidden_layers", count),
    row("hidden", "hidden_size", count),
    row("vocab", "vocab_size", count),
    row("ffn", "intermediate_size", count),
    row("heads", "num_attention_heads", count),
    row("kvHeads", "num_key_value_heads", count, { nullable: true }),
    row("headDim", "head_dim", count, { nullable: true }),
    row("eps", "rms_norm_eps", positive, { absent: 1e-6 }),
    row("tied", "tie_word_embeddings", flag, { absent: false }),
    ...(ATTENTION_BIAS.includes(type)
      ? [row("attentionBias", "attention_bias", flag, { absent: false })]
      : []),
    ...(MLP_BIAS.includes(type) ? [row("mlpBias", "mlp_bias", flag, { absent: false })] : []),
    ...(type === "mistral" ? [row("window", "sliding_window", count, { absent: 4096, nullable: true })] : []),
    ...(PARTLY_SLIDING.includes(type)
      ? [
          row("slides", "use_sliding_window", flag, { absent: false }),
          row("window", "sliding_window", count, { absent: 4096, nullable: true }),
          row("firstSliding", "max_window_layers", whole, { absent: 28 }),
          row("kinds", "layer_types", KINDS, { nullable: true }),
        ]
      : []),
  ];
}

function onlyKeys(type: ModelType): readonly OnlyKey[] {
  const source = modelClass(type);
  return [
    {
      ...{ key: "hidden_act", source, only: ["silu", "swish"], absent: "silu" },
      does: "changes the activation of MLPs",
    },
    {
      ...{ key: "pretraining_tp", source, only: [1] },
      does: "cuts the products of older releases into parts",
    },
    ...(ATTENTION_BIAS.includes(type)
      ? []
      : [
          {
            ...{ key: "attention_bias", source, only: [false, null] },
            does: "adds biases to attention in some engines",
          },
        ]),
    ...(MLP_BIAS.includes(type)
      ? []
      : [
          {
            ...{ key: "mlp_bias", source, only: [false, null] },
            does: "adds biases to MLPs in some engines",
          },
        ]),
    ...(type === "llama"
      ? [
          {
            ...{ key: "sliding_window", source, only: [null] },
            does: "limits attention to a window in some engines",
          },
        ]
      : []),
    { ...{ key: "no_rope_layers", source, only: [null] }, does: "removes the positions of some layers" },
    { ...{ key: "block_configs", source, only: [null] }, does: "gives layers widths of their own" },
    ...COMMON_ONLY_KEYS,
  ];
}

function unreadKeys(type: ModelType): readonly UnreadKeys[] {
  const source = configClass(type);
  return [
    { why: "the longest prompt that an engine accepts", source, keys: ["max_position_embeddings"] },
    { why: "training", source, keys: ["attention_dropout", "initializer_range"] },
    ...COMMON_UNREAD_KEYS,
  ];
}

const readerOf = (type: ModelType): ConfigJson =>
  new ConfigJson({
    architectures: [ARCHITECTURES[type]],
    settings: settingKeys(type),
    only: onlyKeys(type),
    unread: unreadKeys(type),
    nullRefused: [],
    others: ROTARY_KEYS,
  });

const READERS = Object.fromEntries(MODEL_TYPES.map((type) => [type, readerOf(type)])) as Record<
  ModelType,
  ConfigJson
>;

/** The reader of a model type's config.json. */
export const configReader = (type: ModelType): ConfigJson => READERS[type];

export const isSettingKey = (key: string): boolean =>
  MODEL_TYPES.some((type) => configReader(type).isSettingKey(key));

export const isUnreadKey = (key: string): boolean =>
  MODEL_TYPES.every((type) => configReader(type).isUnreadKey(key));
