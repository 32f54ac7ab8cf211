/** How a GGUF runs: which stored rows produce which stream. Written by hand, apart from the rules in `dialect.ts`. */
import type { Native } from "../../forward.ts";
import { attentionUses, embeddingUses, headUses, wholeHeads } from "../../parts/gguf/attention-native.ts";
import { stackedExperts, whole } from "../../parts/whole.ts";
import type { MixtralDims } from "../dims.ts";

/** Mixtral is llama.cpp's `llama`, which has the rows of a head in pairs; qwen3moe does not. */
const attention = attentionUses<MixtralDims>((d) => (d.qkNorm === 1 ? undefined : wholeHeads(d)));

export const gguf: Native<MixtralDims> = {
  dialect: "gguf",
  prefix: { main: "blk.{outer}." },
  uses: {
    embedding: embeddingUses(),
    attention,
    moe: [
      whole("ffn_norm.weight", "gain", (d) => d.hidden),
      whole("ffn_gate_inp.weight", "route", (d) => d.experts),
      stackedExperts("ffn_gate_exps.weight", "expert.gate", (d) => d.moeFfn),
      stackedExperts("ffn_up_exps.weight", "expert.up", (d) => d.moeFfn),
      stackedExperts("ffn_down_exps.weight", "expert.down", (d) => d.hidden),
    ],
    head: headUses(),
  },
};
