/** How the Hugging Face dialect runs: which stored rows produce which stream. Written by hand, apart from the rules. */
import type { Native, Use } from "../../forward.ts";
import { attentionUses } from "../../parts/attention/hf-native.ts";
import { gatedMlpUses } from "../../parts/mlp/hf-native.ts";
import { whole } from "../../parts/whole.ts";
import type { MixtralDims } from "../dims.ts";

const TABLE = "model.embed_tokens.weight";
const MLP_NORM = "post_attention_layernorm.weight";

const attention = attentionUses<MixtralDims>("input_layernorm.weight");

/** @param names of the gate, up and down projections */
const experts = (module: string, gate: string, up: string, down: string): readonly Use<MixtralDims>[] => [
  whole(`${module}.gate.weight`, "route", (d) => d.experts),
  whole(`${module}.experts.{expert}.${gate}.weight`, "expert.gate", (d) => d.moeFfn),
  whole(`${module}.experts.{expert}.${up}.weight`, "expert.up", (d) => d.moeFfn),
  whole(`${module}.experts.{expert}.${down}.weight`, "expert.down", (d) => d.hidden),
];

export const hf: Native<MixtralDims> = {
  dialect: "hf",
  prefix: { main: "model.layers.{outer}." },
  uses: {
    embedding: [whole(TABLE, "vocabulary", (d) => d.vocab)],
    attention,
    sliding_attention: attention,
    mlp: gatedMlpUses(MLP_NORM),
    moe: [
      whole(MLP_NORM, "gain", (d) => d.hidden),
      ...experts("block_sparse_moe", "w1", "w3", "w2"), // Mixtral
      ...experts("mlp", "gate_proj", "up_proj", "down_proj"), // Qwen3-MoE
    ],
    head: [
      whole("model.norm.weight", "gain", (d) => d.hidden),
      // a tied model stores no head, or a copy of the token table
      { ...whole("lm_head.weight", "logits", (d) => d.vocab), also: [TABLE] },
    ],
  },
};
