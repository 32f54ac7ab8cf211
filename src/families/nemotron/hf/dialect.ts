/** The Hugging Face dialect: the tensor names and the config.json of published checkpoints. */
import type { Is } from "../../dialect.ts";
import { attentionRules } from "../../parts/attention/hf-rules.ts";
import { hfDialect, outerRules } from "../../parts/hf/dialect.ts";
import { mlpRules } from "../../parts/mlp/hf-rules.ts";
import type { NemotronDims } from "../dims.ts";
import { keyOf, reader, readSettings, writeConfig } from "./config.ts";

const norm: Is<NemotronDims> = (of) => of("norm");
const bias: Is<NemotronDims> = (of) => of("norm.bias");

export const hf = hfDialect<NemotronDims>({
  rules: [
    ...outerRules<NemotronDims>(),
    { name: "model.norm.bias", is: (of) => of("final.norm.bias") },
    { name: "input_layernorm.weight", on: ["attention"], is: norm },
    { name: "input_layernorm.bias", on: ["attention"], is: bias },
    ...attentionRules<NemotronDims>(["attention"]),
    { name: "post_attention_layernorm.weight", on: ["mlp"], is: norm },
    { name: "post_attention_layernorm.bias", on: ["mlp"], is: bias },
    ...mlpRules<NemotronDims>(["mlp"]),
  ],
  readSettings,
  config: writeConfig,
  keyOf,
  keyRemarks: (config) => reader.remarks(config),
  isSettingKey: (key) => reader.isSettingKey(key),
  isUnreadKey: (key) => reader.isUnreadKey(key),
});
