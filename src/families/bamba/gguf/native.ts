/** How a GGUF runs: which stored rows produce which stream. Written by hand, apart from the rules in `dialect.ts`. */
import type { HeadPairs, Native, Use } from "../../forward.ts";
import { attentionUses, embeddingUses, headUses, wholeHeads } from "../../parts/gguf/attention-native.ts";
import { mambaUses } from "../../parts/gguf/mamba-native.ts";
import type { HybridDims } from "../../parts/hybrid/dims.ts";
import { productOf } from "../../parts/stages.ts";
import { whole } from "../../parts/whole.ts";

const product = (name: string, to: string, count: (d: HybridDims) => number): Use<HybridDims> =>
  whole(name, (d) => productOf(to, d.mlpBias), count);

const nativeWith = (dialect: string, pairsIn: (d: HybridDims) => HeadPairs): Native<HybridDims> => ({
  dialect,
  prefix: { main: "blk.{outer}." },
  uses: {
    embedding: embeddingUses(),
    mamba: [whole("attn_norm.weight", "gain", (d) => d.hidden), ...mambaUses<HybridDims>()],
    attention: attentionUses(pairsIn),
    mlp: [
      whole("ffn_norm.weight", "gain", (d) => d.hidden),
      product("ffn_gate.weight", "gate", (d) => d.ffn),
      product("ffn_up.weight", "up", (d) => d.ffn),
      product("ffn_down.weight", "out", (d) => d.hidden),
      whole("ffn_gate.bias", "gate.bias", (d) => d.ffn),
      whole("ffn_up.bias", "up.bias", (d) => d.ffn),
      whole("ffn_down.bias", "out.bias", (d) => d.hidden),
    ],
    head: headUses(),
  },
});

/** The first half of each head is turned, and its elements are in pairs. */
export const gguf = nativeWith("gguf", ({ headDim }) => ({ width: headDim, paired: headDim / 2 }));

export const wholeHeadPairs = nativeWith("gguf-whole-head-pairs", wholeHeads);
