/**
 * The keys of config.json for each model type: names, allowed values, and the defaults of Transformers, whose classes differ
 * in them. `parts/rotary.ts` reads the keys of rotary positions.
 */
import { ConfigJson, type SettingKey } from "../../parts/config-json.ts";
import { onlyRows, settingRow, unreadRows, widthRows } from "../../parts/hf/keys.ts";
import { count, flag, positive, valueThat, whole } from "../../parts/key-values.ts";
import { ROTARY_KEYS } from "../../parts/rotary.ts";

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
  const row = settingRow(type);
  return [
    ...widthRows(type),
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

/** Keys that the class of a model type does not read. */
const ELSEWHERE = {
  llama: ["sliding_window"],
  mistral: ["attention_bias", "mlp_bias"],
  qwen2: ["attention_bias", "mlp_bias"],
  qwen3: ["mlp_bias"],
} as const;

const readerOf = (type: ModelType): ConfigJson =>
  new ConfigJson({
    architectures: [ARCHITECTURES[type]],
    settings: settingKeys(type),
    only: onlyRows(type, ["silu", "swish"], ELSEWHERE[type]),
    unread: unreadRows(type),
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
