/** The Hugging Face dialect: the tensor names and the config.json of published checkpoints. */
import { attentionRules } from "../../parts/attention/hf-rules.ts";
import { hfDialect, outerRules, tiedHeadRule } from "../../parts/hf/dialect.ts";
import { mlpRules } from "../../parts/mlp/hf-rules.ts";
import type { LlamaDims } from "../dims.ts";
import { ATTENTION } from "../settings.ts";
import { keyOf, readSettings, writeConfig } from "./config.ts";
import { configReader, isSettingKey, isUnreadKey, type ModelType } from "./keys.ts";

export const hf = hfDialect<LlamaDims>({
  rules: [
    ...outerRules<LlamaDims>(),
    tiedHeadRule<LlamaDims>(),
    { name: "input_layernorm.weight", on: ATTENTION, is: (of) => of("norm") },
    ...attentionRules<LlamaDims>(ATTENTION),
    { name: "post_attention_layernorm.weight", on: ["mlp"], is: (of) => of("norm") },
    ...mlpRules<LlamaDims>(["mlp"]),
  ],
  readSettings,
  config: writeConfig,
  keyOf,
  keyRemarks: (config) => configReader(config.model_type as ModelType).remarks(config),
  isSettingKey,
  isUnreadKey,
});
