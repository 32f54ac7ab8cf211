/** How a GGUF runs: which stored rows produce which stream. Written by hand, apart from the rules in `dialect.ts`. */
import type { Native, Use } from "../../forward.ts";
import { attentionUses, embeddingUses, headUses, wholeHeads } from "../../parts/gguf/attention-native.ts";
import { mambaUses } from "../../parts/gguf/mamba-native.ts";
import { expertUses } from "../../parts/gguf/mlp-native.ts";
import { whole } from "../../parts/whole.ts";
import type { GraniteDims } from "../dims.ts";

/** @param to the stream that the output projection produces */
const mlp = (ending: string, to: string): readonly Use<GraniteDims>[] => [
  whole("ffn_norm.weight", "gain", (d) => d.hidden),
  whole(`ffn_gate${ending}.weight`, "gate", (d) => d.ffn),
  whole(`ffn_up${ending}.weight`, "up", (d) => d.ffn),
  whole(`ffn_down${ending}.weight`, to, (d) => d.hidden),
];

export const gguf: Native<GraniteDims> = {
  dialect: "gguf",
  prefix: { main: "blk.{outer}." },
  uses: {
    embedding: embeddingUses(),
    mamba: [whole("attn_norm.weight", "gain", (d) => d.hidden), ...mambaUses<GraniteDims>("branch")],
    attention: attentionUses<GraniteDims>(wholeHeads, "branch"),
    mlp: mlp("", "branch"),
    moe: [...mlp("_shexp", "shared"), ...expertUses<GraniteDims>()],
    head: headUses(),
  },
};
