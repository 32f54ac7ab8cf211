/**
 * The keys of config.json that hold a setting: names, allowed values, and the defaults of Transformers. All other keys are
 * in other-keys.ts.
 */
import type { SettingKey } from "../../parts/config-json.ts";
import { count, finite, flag, type KeyValue, positive, whole } from "../../parts/key-values.ts";
import { timeStepLimits } from "../../parts/mamba/config.ts";
import { TRANSFORMERS } from "../../parts/transformers-keys.ts";

/** Files of the software that reads the keys. */
export const SOURCES = {
  config: "transformers/models/nemotron_h/configuration_nemotron_h.py",
  model: "transformers/models/nemotron_h/modeling_nemotron_h.py",
  ...TRANSFORMERS,
  remote: "configuration_nemotron_h.py and modeling_nemotron_h.py of the published checkpoints",
  vllm: "vllm/model_executor/models/nemotron_h.py",
  bridge: "megatron/bridge/models/nemotronh/nemotron_h_bridge.py",
} as const;

export type Source = keyof typeof SOURCES;

/** Names of layer kinds in Transformers. For Mamba and attention newer releases use the second name. */
const WORDS: Readonly<Record<string, string>> = {
  mamba: "M",
  linear_attention: "M",
  attention: "*",
  full_attention: "*",
  mlp: "-",
  moe: "E",
};

/** Megatron marks pipeline cuts with `|` and the prediction part with `/`. */
const letters: KeyValue = {
  expected: "text",
  read: (value) => (typeof value === "string" ? value.replace(/\/.*$/, "").replaceAll("|", "") : undefined),
};
const words: KeyValue = {
  expected: `a list of ${Object.keys(WORDS).join(", ")}`,
  read(value) {
    const isWord = (kind: unknown) => typeof kind === "string" && Object.hasOwn(WORDS, kind);
    return Array.isArray(value) && value.every(isWord)
      ? value.map((kind) => WORDS[kind]).join("")
      : undefined;
  },
};

export const SETTING_KEYS: readonly SettingKey<Source>[] = [
  {
    ...{ setting: "pattern", key: "hybrid_override_pattern", source: "config", value: letters },
    others: [
      { key: "layers_block_type", source: "config", value: words },
      { key: "layer_types", source: "config", value: words },
    ],
  },
  { setting: "hidden", key: "hidden_size", source: "config", value: count },
  { setting: "vocab", key: "vocab_size", source: "config", value: count },
  {
    ...{ setting: "eps", key: "layer_norm_epsilon", source: "config", value: positive },
    absent: 1e-5,
    others: [
      { key: "rms_norm_eps", source: "remote", ignored: true, written: true },
      { key: "norm_eps", source: "remote", ignored: true },
    ],
  },
  {
    ...{ setting: "dtLimits", key: "time_step_limit", source: "config", value: timeStepLimits },
    ...{ absent: [0, "Infinity"], nullable: true },
    others: [{ key: "mamba_dt_limit", source: "config" }],
  },

  { setting: "mambaHeads", key: "mamba_num_heads", source: "config", value: count, on: "M" },
  { setting: "mambaHeadDim", key: "mamba_head_dim", source: "config", value: count, on: "M" },
  { setting: "state", key: "ssm_state_size", source: "config", value: count, on: "M" },
  {
    ...{ setting: "groups", key: "n_groups", source: "config", value: count, on: "M" },
    others: [{ key: "mamba_n_groups", source: "config" }],
  },
  {
    ...{ setting: "convKernel", key: "conv_kernel", source: "config", value: count, on: "M" },
    others: [{ key: "mamba_d_conv", source: "config" }],
  },

  { setting: "heads", key: "num_attention_heads", source: "config", value: count, on: "*" },
  { setting: "kvHeads", key: "num_key_value_heads", source: "config", value: count, on: "*" },
  {
    ...{ setting: "headDim", key: "head_dim", source: "config", value: count, on: "*", nullable: true },
    // the shapes of projections prove the value, whichever key holds it
    others: [{ key: "attention_head_dim", source: "remote", written: true }],
  },

  { setting: "ffn", key: "intermediate_size", source: "config", value: count, on: "-" },

  {
    ...{ setting: "experts", key: "n_routed_experts", source: "config", value: count, on: "E" },
    others: [{ key: "num_local_experts", source: "config" }],
  },
  { setting: "topK", key: "num_experts_per_tok", source: "config", value: count, on: "E" },
  { setting: "moeFfn", key: "moe_intermediate_size", source: "config", value: count, on: "E" },
  {
    ...{ setting: "moeShared", key: "moe_shared_expert_intermediate_size", source: "config" },
    ...{ value: count, on: "E" },
  },
  {
    ...{ setting: "latent", key: "moe_latent_size", source: "config", value: count, on: "E" },
    ...{ absent: 0, nullable: true },
  },
  { setting: "routeGroups", key: "n_group", source: "config", value: count, on: "E", absent: 1 },
  { setting: "routeTopGroups", key: "topk_group", source: "config", value: count, on: "E", absent: 1 },
  {
    ...{ setting: "routeNormalise", key: "norm_topk_prob", source: "config", value: flag },
    ...{ on: "E", absent: true },
  },
  {
    ...{ setting: "routeScale", key: "routed_scaling_factor", source: "config", value: finite },
    ...{ on: "E", absent: 1 },
  },

  {
    ...{ setting: "mtpSteps", key: "num_nextn_predict_layers", source: "config" },
    ...{ value: whole, absent: 0, nullable: true },
  },
  {
    ...{ setting: "mtpPattern", key: "mtp_hybrid_override_pattern", source: "config", value: letters },
    ...{ on: "steps", nullable: true },
    others: [{ key: "mtp_layers_block_type", source: "config", value: words }],
  },
];
