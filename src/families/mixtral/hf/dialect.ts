/** The Hugging Face dialect: the tensor names and the config.json of published checkpoints. */
import type { Rule } from "../../dialect.ts";
import { attentionRules } from "../../parts/attention/hf-rules.ts";
import { hfDialect, outerRules, tiedHeadRule } from "../../parts/hf/dialect.ts";
import { mlpRules } from "../../parts/mlp/hf-rules.ts";
import type { MixtralDims } from "../dims.ts";
import { ATTENTION } from "../settings.ts";
import { keyOf, readSettings, writeConfig } from "./config.ts";
import { configReader, isSettingKey, isUnreadKey, type MixtralModelType } from "./keys.ts";

/** Names of Qwen3-MoE and of Mixtral, which has no norms of queries and keys. */
const expertRule = (qwen: string, mixtral: string, role: string): readonly Rule<MixtralDims>[] => [
  { name: `mlp.${qwen}.weight`, on: ["moe"], when: (d) => d.qkNorm === 1, is: (of) => of(role) },
  {
    name: `block_sparse_moe.${mixtral}.weight`,
    on: ["moe"],
    when: (d) => d.qkNorm === 0,
    is: (of) => of(role),
  },
];

export const hf = hfDialect<MixtralDims>({
  rules: [
    ...outerRules<MixtralDims>(),
    tiedHeadRule<MixtralDims>(),
    { name: "input_layernorm.weight", on: ATTENTION, is: (of) => of("norm") },
    ...attentionRules<MixtralDims>(ATTENTION),
    { name: "post_attention_layernorm.weight", on: ["mlp", "moe"], is: (of) => of("norm") },
    ...mlpRules<MixtralDims>(["mlp"]),
    ...expertRule("gate", "gate", "moe.gate"),
    ...expertRule("experts.{expert}.gate_proj", "experts.{expert}.w1", "moe.gate_proj"),
    ...expertRule("experts.{expert}.up_proj", "experts.{expert}.w3", "moe.up"),
    ...expertRule("experts.{expert}.down_proj", "experts.{expert}.w2", "moe.down"),
  ],
  readSettings,
  config: writeConfig,
  keyOf,
  keyRemarks: (config) => configReader(config.model_type as MixtralModelType).remarks(config),
  isSettingKey,
  isUnreadKey,
});
