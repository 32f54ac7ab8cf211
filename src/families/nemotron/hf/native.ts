/** How the Hugging Face dialect runs: which stored rows produce which stream. Written by hand, apart from the rules. */
import type { Native } from "../../forward.ts";
import { attentionUses } from "../../parts/attention/hf-native.ts";
import { mlpUses } from "../../parts/mlp/hf-native.ts";
import { whole } from "../../parts/whole.ts";
import type { NemotronDims } from "../dims.ts";

const shift = (name: string) => whole<NemotronDims>(name, "shift", (d) => d.hidden);

export const hf: Native<NemotronDims> = {
  dialect: "hf",
  prefix: { main: "model.layers.{outer}." },
  uses: {
    embedding: [whole("model.embed_tokens.weight", "vocabulary", (d) => d.vocab)],
    attention: [shift("input_layernorm.bias"), ...attentionUses<NemotronDims>("input_layernorm.weight")],
    mlp: [
      shift("post_attention_layernorm.bias"),
      ...mlpUses<NemotronDims>("post_attention_layernorm.weight"),
    ],
    head: [
      shift("model.norm.bias"),
      whole("model.norm.weight", "gain", (d) => d.hidden),
      whole("lm_head.weight", "logits", (d) => d.vocab),
    ],
  },
};
