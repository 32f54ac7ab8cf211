/** How a GGUF runs: which stored rows produce which stream. Written by hand, apart from the rules in `dialect.ts`. */
import type { Native } from "../../forward.ts";
import { attentionUses, embeddingUses, headUses, wholeHeads } from "../../parts/gguf/attention-native.ts";
import { expertUses } from "../../parts/gguf/mlp-native.ts";
import { whole } from "../../parts/whole.ts";
import type { MixtralDims } from "../dims.ts";

/** Mixtral is llama.cpp's `llama`, which has the rows of a head in pairs; qwen3moe does not. */
const attention = attentionUses<MixtralDims>((d) => (d.qkNorm === 1 ? undefined : wholeHeads(d)));

export const gguf: Native<MixtralDims> = {
  dialect: "gguf",
  prefix: { main: "blk.{outer}." },
  uses: {
    embedding: embeddingUses(),
    attention,
    moe: [whole("ffn_norm.weight", "gain", (d) => d.hidden), ...expertUses<MixtralDims>()],
    head: headUses(),
  },
};
