/** How a GGUF runs: which stored rows produce which stream. Written by hand, apart from the rules in `dialect.ts`. */
import type { HeadPairs, Native } from "../../forward.ts";
import { attentionUses, embeddingUses, headUses, wholeHeads } from "../../parts/gguf/attention-native.ts";
import { mambaUses } from "../../parts/gguf/mamba-native.ts";
import { gatedMlpUses } from "../../parts/gguf/mlp-native.ts";
import type { HybridDims } from "../../parts/hybrid/dims.ts";
import { whole } from "../../parts/whole.ts";

const nativeWith = (dialect: string, pairsIn: (d: HybridDims) => HeadPairs): Native<HybridDims> => ({
  dialect,
  prefix: { main: "blk.{outer}." },
  uses: {
    embedding: embeddingUses(),
    mamba: [whole("attn_norm.weight", "gain", (d) => d.hidden), ...mambaUses<HybridDims>()],
    attention: attentionUses(pairsIn),
    mlp: gatedMlpUses(),
    head: headUses(),
  },
});

/** The first half of each head is turned, and its elements are in pairs. */
export const gguf = nativeWith("gguf", ({ headDim }) => ({ width: headDim, paired: headDim / 2 }));

export const wholeHeadPairs = nativeWith("gguf-whole-head-pairs", wholeHeads);
