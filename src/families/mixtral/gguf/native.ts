/** How a GGUF runs: which stored rows produce which stream. Written by hand, apart from the rules in `dialect.ts`. */
import type { Native, Use } from "../../forward.ts";
import { attentionUses, embeddingUses, headUses } from "../../parts/gguf/attention-native.ts";
import { whole } from "../../parts/whole.ts";
import type { MixtralDims } from "../dims.ts";

/** Mixtral is llama.cpp's `llama`, which has the rows of a head in pairs; qwen3moe does not. */
const attention = attentionUses<MixtralDims>((d) => (d.qkNorm === 1 ? undefined : d.headDim));

/** All experts as one tensor: the rows of one expert after the other. */
const stack = (name: string, to: string, count: (d: MixtralDims) => number): Use<MixtralDims> => ({
  name,
  outputs: (d, { expert }) => [{ to, at: 0, from: expert * count(d), count: count(d) }],
});

export const gguf: Native<MixtralDims> = {
  dialect: "gguf",
  prefix: { main: "blk.{outer}." },
  uses: {
    embedding: embeddingUses(),
    attention,
    moe: [
      whole("ffn_norm.weight", "gain", (d) => d.hidden),
      whole("ffn_gate_inp.weight", "route", (d) => d.experts),
      stack("ffn_gate_exps.weight", "expert.gate", (d) => d.moeFfn),
      stack("ffn_up_exps.weight", "expert.up", (d) => d.moeFfn),
      stack("ffn_down_exps.weight", "expert.down", (d) => d.hidden),
    ],
    head: headUses(),
  },
};
