/**
 * How Megatron's dialects run, rank by rank as in Megatron: queries, keys and values stay fused and their activations are
 * divided by group; the fused tensor of a rank produces its share of each stream; partial sums of row-parallel layers are
 * added over ranks. This table is written by hand and does not use `rules.ts`, because it checks the rules.
 */
import type { Native } from "../../forward.ts";
import { distMambaUses, sharedMambaUses } from "../../parts/megatron/mamba-native.ts";
import {
  byGroup,
  columns,
  expertDown,
  expertUp,
  fusedParts,
  rows,
} from "../../parts/megatron/native-uses.ts";
import { stackedExperts } from "../../parts/whole.ts";
import type { NemotronHDims } from "../dims.ts";

type Size = (d: NemotronHDims) => number;

const hidden: Size = (d) => d.hidden;

/** NeMo's old converter gave the norm of every layer this name. */
const OLD_NORM = "mixer.in_proj.layer_norm_weight";

/** Tensors of both dialects. A norm is part of the module after it; in unfused builds it is a separate module. */
const shared = {
  embedding: [rows("embedding.word_embeddings.weight", "vocabulary", (d) => d.vocab)],
  mamba: [rows(OLD_NORM, "gain", hidden, ["norm.weight"]), ...sharedMambaUses<NemotronHDims>()],
  attention: [
    rows("self_attention.linear_qkv.layer_norm_weight", "gain", hidden, ["input_layernorm.weight", OLD_NORM]),
    { name: "self_attention.linear_qkv.weight", outputs: byGroup() },
    columns("self_attention.linear_proj.weight", "out", (d) => d.q),
  ],
  mlp: [
    rows("mlp.linear_fc1.layer_norm_weight", "gain", hidden, ["pre_mlp_layernorm.weight", OLD_NORM]),
    rows("mlp.linear_fc1.weight", "up", (d) => d.ffn),
    columns("mlp.linear_fc2.weight", "out", (d) => d.ffn),
  ],
  moe: [
    rows("pre_mlp_layernorm.weight", "gain", hidden),
    rows("mlp.router.weight", "route", (d) => d.experts),
    rows("mlp.router.expert_bias", "correction", (d) => d.experts),
    rows("mlp.fc1_latent_proj.weight", "latent", (d) => d.latent),
    rows("mlp.fc2_latent_proj.weight", "routed", hidden),
    rows("mlp.shared_experts.linear_fc1.weight", "shared.up", (d) => d.moeShared),
    columns("mlp.shared_experts.linear_fc2.weight", "shared", (d) => d.moeShared),
  ],
  mtpStart: [
    rows("enorm.weight", "words.gain", hidden),
    rows("hnorm.weight", "gain", hidden),
    rows("eh_proj.weight", "out", hidden),
  ],
  mtpEnd: [rows("final_layernorm.weight", "gain", hidden)],
  head: [
    rows("decoder.final_norm.weight", "gain", hidden, ["decoder.final_layernorm.weight"]),
    rows("output_layer.weight", "logits", (d) => d.vocab),
  ],
} satisfies Native<NemotronHDims>["uses"];

const prefix: Native<NemotronHDims>["prefix"] = {
  main: "decoder.layers.{layer}.",
  mtp: "mtp.layers.{outer}.mtp_model_layer.layers.{inner}.",
  step: "mtp.layers.{outer}.",
};

/** Keys of a distributed checkpoint: shapes of the whole model, Mamba's fused matrices in named parts. */
export const megatron: Native<NemotronHDims> = {
  dialect: "megatron",
  prefix,
  uses: {
    ...shared,
    mamba: [...shared.mamba, ...distMambaUses<NemotronHDims>()],
    moe: [
      ...shared.moe,
      stackedExperts("mlp.experts.experts.linear_fc1.weight", "expert.up", (d) => d.moeFfn),
      stackedExperts("mlp.experts.experts.linear_fc2.weight", "expert.down", (d) => d.moeWidth),
      expertUp("mlp.experts.experts.{expert}.linear_fc1.weight"),
      expertDown("mlp.experts.experts.{expert}.linear_fc2.weight"),
    ],
  },
};

/** Modules of one rank: fused tensors, and numbers of its own for layers and experts. */
export const megatronRanks: Native<NemotronHDims> = {
  dialect: "megatron-ranks",
  prefix,
  uses: {
    ...shared,
    mamba: [
      ...shared.mamba,
      fusedParts("mixer.in_proj.weight", (d) => ({
        ...{ z: d.inner, x: d.inner, B: d.groupState, C: d.groupState, dt: d.mambaHeads },
      })),
      fusedParts(
        "mixer.conv1d.weight",
        (d) => ({ "taps.x": d.inner, "taps.B": d.groupState, "taps.C": d.groupState }),
        ["mixer.conv1d_weight"],
      ),
      fusedParts(
        "mixer.conv1d.bias",
        (d) => ({ "bias.x": d.inner, "bias.B": d.groupState, "bias.C": d.groupState }),
        ["mixer.conv1d_bias"],
      ),
    ],
    moe: [
      ...shared.moe,
      expertUp("mlp.experts.linear_fc1.weight{expert}", [
        "mlp.experts.local_experts.{expert}.linear_fc1.weight",
      ]),
      expertDown("mlp.experts.linear_fc2.weight{expert}", [
        "mlp.experts.local_experts.{expert}.linear_fc2.weight",
      ]),
    ],
  },
};
