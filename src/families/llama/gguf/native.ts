/** How a GGUF runs: which stored rows produce which stream. Written by hand, apart from the rules in `dialect.ts`. */
import type { Native, Use } from "../../forward.ts";
import { attentionUses, embeddingUses, headUses, wholeHeads } from "../../parts/gguf/attention-native.ts";
import { productOf } from "../../parts/stages.ts";
import { whole } from "../../parts/whole.ts";
import type { LlamaDims } from "../dims.ts";

/** The architecture `llama` has the rows of a head in pairs; qwen2 (biases without one in the output) and qwen3 do not. */
const attention = attentionUses<LlamaDims>((d) =>
  d.qkNorm === 1 || (d.qkvBias === 1 && d.outBias === 0) ? undefined : wholeHeads(d),
);

const product = (name: string, to: string, count: (d: LlamaDims) => number): Use<LlamaDims> =>
  whole(name, (d) => productOf(to, d.mlpBias), count);

export const gguf: Native<LlamaDims> = {
  dialect: "gguf",
  prefix: { main: "blk.{outer}." },
  uses: {
    embedding: embeddingUses(),
    attention,
    sliding_attention: attention,
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
};
