/** How the Hugging Face dialect runs: which stored rows produce which stream. Written by hand, apart from the rules. */
import type { Native } from "../../forward.ts";
import { attentionUses } from "../../parts/attention/hf-native.ts";
import type { HybridDims } from "../../parts/hybrid/dims.ts";
import { mambaUses } from "../../parts/mamba/hf-native.ts";
import { gatedMlpUses } from "../../parts/mlp/hf-native.ts";
import { whole } from "../../parts/whole.ts";

const TABLE = "model.embed_tokens.weight";
const NORM = "input_layernorm.weight";

export const hf: Native<HybridDims> = {
  dialect: "hf",
  prefix: { main: "model.layers.{outer}." },
  uses: {
    embedding: [whole(TABLE, "vocabulary", (d) => d.vocab)],
    mamba: [whole(NORM, "gain", (d) => d.hidden), ...mambaUses<HybridDims>()],
    attention: attentionUses<HybridDims>(NORM),
    mlp: gatedMlpUses<HybridDims>("pre_ff_layernorm.weight", "feed_forward."),
    head: [
      whole("model.final_layernorm.weight", "gain", (d) => d.hidden),
      { ...whole("lm_head.weight", "logits", (d) => d.vocab), also: [TABLE] },
    ],
  },
};
