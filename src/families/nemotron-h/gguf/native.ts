/** How a GGUF runs: which stored rows produce which stream. Written by hand, apart from the rules in `dialect.ts`. */
import type { Native, OutputRows, Use } from "../../forward.ts";
import { stackedExperts, whole } from "../../parts/whole.ts";
import type { NemotronHDims } from "../dims.ts";

const rows = (to: string, from: number, count: number): OutputRows => ({ to, at: 0, from, count });

const GAIN = whole<NemotronHDims>("attn_norm.weight", "gain", (d) => d.hidden);

/** In a prediction step the block has two layers, and this is the norm of the second one, which has the experts. */
const SECOND_GAIN = "post_attention_norm.weight";

/** x, B and C, as the convolution has them. */
const channels = (name: string, parameter: string): Use<NemotronHDims> => ({
  name,
  outputs: (d) => [
    rows(`${parameter}.x`, 0, d.inner),
    rows(`${parameter}.B`, d.inner, d.groupState),
    rows(`${parameter}.C`, d.inner + d.groupState, d.groupState),
  ],
});

const HEAD: readonly [string, string] = ["output.weight", "token_embd.weight"];

export const gguf: Native<NemotronHDims> = {
  dialect: "gguf",
  prefix: { main: "blk.{layer}.", mtp: "blk.{after}.", step: "blk.{after}." },
  uses: {
    embedding: [whole(HEAD[1], "vocabulary", (d) => d.vocab)],
    mamba: [
      GAIN,
      {
        name: "ssm_in.weight",
        outputs: (d) => [
          rows("z", 0, d.inner),
          rows("x", d.inner, d.inner),
          rows("B", 2 * d.inner, d.groupState),
          rows("C", 2 * d.inner + d.groupState, d.groupState),
          rows("dt", 2 * d.inner + 2 * d.groupState, d.mambaHeads),
        ],
      },
      channels("ssm_conv1d.weight", "taps"),
      channels("ssm_conv1d.bias", "bias"),
      whole("ssm_a", "A_log", (d) => d.mambaHeads), // the logarithm of its negative is what a run reads
      whole("ssm_d", "D", (d) => d.mambaHeads),
      whole("ssm_dt.bias", "dt_bias", (d) => d.mambaHeads),
      whole("ssm_norm.weight", "gate.gain", (d) => d.groups), // [groups, inner / groups]: a row is a group
      whole("ssm_out.weight", "out", (d) => d.hidden),
    ],
    attention: [
      GAIN,
      { ...whole("attn_q.weight", "q", (d) => d.q), pairsIn: (d) => d.headDim },
      { ...whole("attn_k.weight", "k", (d) => d.kv), pairsIn: (d) => d.headDim },
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
