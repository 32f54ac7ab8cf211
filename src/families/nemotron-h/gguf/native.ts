/** How a GGUF runs: which stored rows produce which stream. Written by hand, apart from the rules in `dialect.ts`. */
import type { HeadPairs, Native } from "../../forward.ts";
import { mambaUses } from "../../parts/gguf/mamba-native.ts";
import { stackedExperts, whole } from "../../parts/whole.ts";
import type { NemotronHDims } from "../dims.ts";

const GAIN = whole<NemotronHDims>("attn_norm.weight", "gain", (d) => d.hidden);

/** In a prediction step the block has two layers, and this is the norm of the second one, which has the experts. */
const SECOND_GAIN = "post_attention_norm.weight";

const pairsIn = ({ headDim }: NemotronHDims): HeadPairs => ({ width: headDim, paired: headDim });

const HEAD: readonly [string, string] = ["output.weight", "token_embd.weight"];

export const gguf: Native<NemotronHDims> = {
  dialect: "gguf",
  prefix: { main: "blk.{layer}.", mtp: "blk.{after}.", step: "blk.{after}." },
  uses: {
    embedding: [whole(HEAD[1], "vocabulary", (d) => d.vocab)],
    mamba: [GAIN, ...mambaUses<NemotronHDims>()],
    attention: [
      GAIN,
      { ...whole("attn_q.weight", "q", (d) => d.q), pairsIn },
      { ...whole("attn_k.weight", "k", (d) => d.kv), pairsIn },
      whole("attn_v.weight", "v", (d) => d.kv),
      whole("attn_output.weight", "out", (d) => d.hidden),
    ],
    mlp: [GAIN, whole("ffn_up.weight", "up", (d) => d.ffn), whole("ffn_down.weight", "out", (d) => d.hidden)],
    moe: [
      { ...whole(SECOND_GAIN, "gain", (d) => d.hidden), also: [GAIN.name] },
      whole("ffn_gate_inp.weight", "route", (d) => d.experts),
      whole("exp_probs_b.bias", "correction", (d) => d.experts),
      whole("ffn_latent_down.weight", "latent", (d) => d.latent),
      stackedExperts("ffn_up_exps.weight", "expert.up", (d) => d.moeFfn),
      stackedExperts("ffn_down_exps.weight", "expert.down", (d) => d.moeWidth),
      whole("ffn_latent_up.weight", "routed", (d) => d.hidden),
      whole("ffn_up_shexp.weight", "shared.up", (d) => d.moeShared),
      whole("ffn_down_shexp.weight", "shared", (d) => d.hidden),
    ],
    mtpStart: [
      whole("nextn.enorm.weight", "words.gain", (d) => d.hidden),
      whole("nextn.hnorm.weight", "gain", (d) => d.hidden),
      whole("nextn.eh_proj.weight", "out", (d) => d.hidden),
    ],
    mtpEnd: [whole("nextn.shared_head_norm.weight", "gain", (d) => d.hidden)],
    head: [
      whole("output_norm.weight", "gain", (d) => d.hidden),
      { ...whole(HEAD[0], "logits", (d) => d.vocab), also: [HEAD[1]] },
    ],
  },
};
