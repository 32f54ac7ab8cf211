/** How the Hugging Face dialect runs: which stored rows produce which stream. Written by hand, apart from the rules. */
import type { Native } from "../../forward.ts";
import { attentionMixerUses } from "../../parts/attention/hf-native.ts";
import { mambaUses } from "../../parts/mamba/hf-native.ts";
import { gatedMlpUses } from "../../parts/mlp/hf-native.ts";
import { whole } from "../../parts/whole.ts";
import type { FalconH1Dims } from "../dims.ts";

const TABLE = "model.embed_tokens.weight";

export const hf: Native<FalconH1Dims> = {
  dialect: "hf",
  prefix: { main: "model.layers.{outer}." },
  uses: {
    embedding: [whole(TABLE, "vocabulary", (d) => d.vocab)],
    hybrid: [
      whole("input_layernorm.weight", "gain", (d) => d.hidden),
      ...mambaUses<FalconH1Dims>("mamba.", "ssm.out"),
      ...attentionMixerUses<FalconH1Dims>("attn.out"),
    ],
    mlp: gatedMlpUses<FalconH1Dims>("pre_ff_layernorm.weight", "feed_forward.", "down"),
    head: [
      whole("model.final_layernorm.weight", "gain", (d) => d.hidden),
      { ...whole("lm_head.weight", "logits", (d) => d.vocab), also: [TABLE] },
    ],
  },
};
