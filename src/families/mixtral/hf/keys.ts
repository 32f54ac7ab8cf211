/** The keys of config.json for each model type: names, allowed values, and the defaults of Transformers. */
import { ConfigJson, type SettingKey } from "../../parts/config-json.ts";
import type { UnreadKeys } from "../../parts/config-keys.ts";
import { modelClass, onlyRows, settingRow, unreadRows, widthRows } from "../../parts/hf/keys.ts";
import { count, flag, positive, valueThat } from "../../parts/key-values.ts";
import { ROTARY_KEYS } from "../../parts/rotary.ts";

const MODEL_TYPES = ["mixtral", "qwen3_moe"] as const;

export type MixtralModelType = (typeof MODEL_TYPES)[number];

export function isModelType(name: unknown): name is MixtralModelType {
  return MODEL_TYPES.some((type) => type === name);
}

/** Class in Transformers, vLLM and SGLang. */
export const ARCHITECTURES: Readonly<Record<MixtralModelType, string>> = {
  mixtral: "MixtralForCausalLM",
  qwen3_moe: "Qwen3MoeForCausalLM",
};

/** Numbers of blocks. */
const BLOCKS = valueThat(
  "a list of whole numbers",
  (value) => Array.isArray(value) && value.every((index) => Number.isSafeInteger(index)),
);

/** Two spellings of the number of experts: releases and Transformers 5 differ. */
function expertsRow(type: MixtralModelType, key: string, other: string, absent: number): SettingKey {
  const row = settingRow(type)("experts", key, count, { absent });
  return { ...row, others: [{ key: other, source: row.source }] };
}

function settingsOf(type: MixtralModelType): readonly SettingKey[] {
  const row = settingRow(type);
  return [
    ...widthRows(type),
    row("tied", "tie_word_embeddings", flag, { absent: false }),
    ...(type === "mixtral"
      ? [
          row("eps", "rms_norm_eps", positive, { absent: 1e-5 }),
          row("window", "sliding_window", count, { nullable: true }),
          expertsRow(type, "num_local_experts", "num_experts", 8),
          row("topK", "num_experts_per_tok", count, { absent: 2 }),
        ]
      : [
          row("eps", "rms_norm_eps", positive, { absent: 1e-6 }),
          row("attentionBias", "attention_bias", flag, { absent: false }),
          row("slides", "use_sliding_window", flag, { absent: false }),
          row("window", "sliding_window", count, { absent: 4096, nullable: true }),
          expertsRow(type, "num_experts", "num_local_experts", 128),
          row("topK", "num_experts_per_tok", count, { absent: 8 }),
          row("moeFfn", "moe_intermediate_size", count, { absent: 768 }),
          row("routeNormalise", "norm_topk_prob", flag, { absent: false }),
          row("denseBlocks", "mlp_only_layers", BLOCKS, { absent: [], nullable: true }),
          row("sparseStep", "decoder_sparse_step", count, { absent: 1 }),
        ]),
  ];
}

/** Keys that the class of a model type does not read. */
const ELSEWHERE = { mixtral: ["attention_bias", "mlp_bias"], qwen3_moe: ["mlp_bias"] } as const;

function unreadOf(type: MixtralModelType): readonly UnreadKeys[] {
  const source = modelClass(type);
  const training = ["router_aux_loss_coef", "router_jitter_noise", "output_router_logits"];
  return [
    ...unreadRows(type),
    { why: "training", source, keys: training },
    ...(type === "qwen3_moe"
      ? [
          {
            why: "read only in models in which some blocks have a window",
            source,
            keys: ["max_window_layers"],
          },
        ]
      : []),
  ];
}

const readerOf = (type: MixtralModelType): ConfigJson =>
  new ConfigJson({
    architectures: [ARCHITECTURES[type]],
    settings: settingsOf(type),
    only: [
      ...onlyRows(type, ["silu", "swish"], ELSEWHERE[type]),
      ...["shared_expert_intermediate_size", "n_shared_experts"].map((key) => ({
        ...{ key, source: modelClass(type), only: [null, 0] },
        does: "adds an expert that each token uses",
      })),
    ],
    unread: unreadOf(type),
    nullRefused: [],
    others: ROTARY_KEYS,
  });

const READERS: Readonly<Record<MixtralModelType, ConfigJson>> = {
  mixtral: readerOf("mixtral"),
  qwen3_moe: readerOf("qwen3_moe"),
};

/** The reader of a model type's config.json. */
export const configReader = (type: MixtralModelType): ConfigJson => READERS[type];

export const isSettingKey = (key: string): boolean =>
  MODEL_TYPES.some((type) => configReader(type).isSettingKey(key));

export const isUnreadKey = (key: string): boolean =>
  MODEL_TYPES.every((type) => configReader(type).isUnreadKey(key));
