/**
 * How the Hugging Face dialect runs: which stored rows produce which stream. This table is written by hand and does not
 * use the rules in `dialect.ts`, because it checks them: if they exchange z and x, verification must find it.
 */
import type { Native } from "../../forward.ts";
import { mambaUses } from "../../parts/mamba/hf-native.ts";
import { stackedExperts, whole } from "../../parts/whole.ts";
import type { NemotronHDims } from "../dims.ts";

/** The token table. It is also the head if no head is stored, which only a config that ties the two allows. */
const TABLE = [
  "backbone.embeddings.weight",
  "backbone.embedding.weight",
  "model.embeddings.weight",
  "model.embedding.weight",
] as const;

export const hf: Native<NemotronHDims> = {
  dialect: "hf",
  prefix: {
    main: "backbone.layers.{layer}.",
    also: "model.layers.{layer}.",
    mtp: "mtp.layers.{layer}.",
    step: "mtp.layers.{layer}.",
  },
  uses: {
    embedding: [{ ...whole(TABLE[0], "vocabulary", (d) => d.vocab), also: TABLE.slice(1) }],
    mamba: [whole("norm.weight", "gain", (d) => d.hidden), ...mambaUses<NemotronHDims>("mixer.")],
    attention: [
      whole("norm.weight", "gain", (d) => d.hidden),
      whole("mixer.q_proj.weight", "q", (d) => d.q),
      whole("mixer.k_proj.weight", "k", (d) => d.kv),
      whole("mixer.v_proj.weight", "v", (d) => d.kv),
      whole("mixer.o_proj.weight", "out", (d) => d.hidden),
    ],
    mlp: [
      whole("norm.weight", "gain", (d) => d.hidden),
      whole("mixer.up_proj.weight", "up", (d) => d.ffn),
      whole("mixer.down_proj.weight", "out", (d) => d.hidden),
    ],
    moe: [
      whole("norm.weight", "gain", (d) => d.hidden),
      whole("mixer.gate.weight", "route", (d) => d.experts),
      whole("mixer.gate.e_score_correction_bias", "correction", (d) => d.experts),
      whole("mixer.fc1_latent_proj.weight", "latent", (d) => d.latent),
      whole("mixer.experts.{expert}.up_proj.weight", "expert.up", (d) => d.moeFfn),
      whole("mixer.experts.{expert}.down_proj.weight", "expert.down", (d) => d.moeWidth),
      stackedExperts("mixer.experts.up_proj", "expert.up", (d) => d.moeFfn),
      stackedExperts("mixer.experts.down_proj", "expert.down", (d) => d.moeWidth),
      whole("mixer.fc2_latent_proj.weight", "routed", (d) => d.hidden),
      whole("mixer.shared_experts.up_proj.weight", "shared.up", (d) => d.moeShared),
      whole("mixer.shared_experts.down_proj.weight", "shared", (d) => d.hidden),
    ],
    mtpStart: [
      whole("enorm.weight", "words.gain", (d) => d.hidden),
      whole("hnorm.weight", "gain", (d) => d.hidden),
      whole("eh_proj.weight", "out", (d) => d.hidden),
    ],
    mtpEnd: [whole("final_layernorm.weight", "gain", (d) => d.hidden)],
    head: [
      { ...whole("backbone.norm_f.weight", "gain", (d) => d.hidden), also: ["model.norm_f.weight"] },
      { ...whole("lm_head.weight", "logits", (d) => d.vocab), also: TABLE },
    ],
  },
};
