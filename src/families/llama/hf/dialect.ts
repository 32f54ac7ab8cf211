/** The Hugging Face dialect: the tensor names and the config.json of published checkpoints. */
import type { Dialect, Rule } from "../../dialect.ts";
import { attentionRules } from "../../parts/attention/hf-rules.ts";
import { gatedMlpRules } from "../../parts/mlp/hf-rules.ts";
import type { Structure } from "../../structure.ts";
import type { LlamaDims } from "../dims.ts";
import { ATTENTION } from "../settings.ts";
import { keyOf, parseConfig, writeConfig } from "./config.ts";
import { configReader, isSettingKey, isUnreadKey, type ModelType } from "./keys.ts";

const rules: readonly Rule<LlamaDims>[] = [
  { name: "model.embed_tokens.weight", is: (of) => of("embed") },
  { name: "input_layernorm.weight", on: ATTENTION, is: (of) => of("norm") },
  ...attentionRules<LlamaDims>(ATTENTION),
  { name: "post_attention_layernorm.weight", on: ["mlp"], is: (of) => of("norm") },
  ...gatedMlpRules<LlamaDims>(["mlp"]),
  { name: "model.norm.weight", is: (of) => of("final.norm") },
  { name: "lm_head.weight", is: (of) => of("head") },
  // some fine-tuned models that are tied store the head as well
  { name: "lm_head.weight", copy: true, readOnly: true, when: (d) => d.tied === 1, is: (of) => of("embed") },
];

/** The model is not divided, and no row is padding. */
function wholeParallelism({ dims, layers }: Structure<LlamaDims>) {
  return { tp: 1, ep: 1, expertTp: 1, stages: [{ main: layers.length, mtp: 0 }], rows: dims.vocab };
}

export const hf: Dialect<LlamaDims> = {
  id: "hf",
  rules,
  stacks: { main: "model.layers.{outer}." },
  // older releases saved the frequencies, which follow from the config
  drop: [
    {
      match: /(^|\.)rotary_emb\.(inv_freq|cos_cached|sin_cached)$/,
      why: "frequencies that the config gives",
    },
  ],
  objects: () => [],
  settings: parseConfig,
  vocabulary: ({ vocab_size }) => (typeof vocab_size === "number" ? vocab_size : undefined),
  parallelism: (_, model) => wholeParallelism(model),
  cut: wholeParallelism,
  config: writeConfig,
  keyOf,
  keyRemarks: (config) => configReader(config.model_type as ModelType).remarks(config),
  isSettingKey,
  isUnreadKey,
};
