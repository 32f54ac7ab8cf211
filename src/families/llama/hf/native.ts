/** How the Hugging Face dialect runs: which stored rows produce which stream. Written by hand, apart from the rules. */
import type { Native } from "../../forward.ts";
import { attentionUses } from "../../parts/attention/hf-native.ts";
import { gatedMlpUses } from "../../parts/mlp/hf-native.ts";
import { whole } from "../../parts/whole.ts";
import type { LlamaDims } from "../dims.ts";

const TABLE = "model.embed_tokens.weight";

const attention = attentionUses<LlamaDims>("input_layernorm.weight");

export const hf: Native<LlamaDims> = {
  dialect: "hf",
  prefix: { main: "model.layers.{outer}." },
  uses: {
    embedding: [whole(TABLE, "vocabulary", (d) => d.vocab)],
    attention,
    sliding_attention: attention,
    mlp: gatedMlpUses("post_attention_layernorm.weight"),
    head: [
      whole("model.norm.weight", "gain", (d) => d.hidden),
      // a tied model stores no head, or a copy of the token table
      { ...whole("lm_head.weight", "logits", (d) => d.vocab), also: [TABLE] },
    ],
  },
};
