/** How a GGUF runs: which stored rows produce which stream. Written by hand, apart from the rules in `dialect.ts`. */
import type { Native } from "../../forward.ts";
import { attentionUses, embeddingUses, headUses, wholeHeads } from "../../parts/gguf/attention-native.ts";
import { gatedMlpUses } from "../../parts/gguf/mlp-native.ts";
import type { LlamaDims } from "../dims.ts";

/** The architecture `llama` has the rows of a head in pairs; qwen2 (biases without one in the output) and qwen3 do not. */
const attention = attentionUses<LlamaDims>((d) =>
  d.qkNorm === 1 || (d.qkvBias === 1 && d.outBias === 0) ? undefined : wholeHeads(d),
);

export const gguf: Native<LlamaDims> = {
  dialect: "gguf",
  prefix: { main: "blk.{outer}." },
  uses: {
    embedding: embeddingUses(),
    attention,
    sliding_attention: attention,
    mlp: gatedMlpUses(),
    head: headUses(),
  },
};
