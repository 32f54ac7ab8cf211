/** The tensors of a distributed checkpoint of Megatron-Bridge's FalconH1Model: one norm for both branches of a layer. */
import type { Rule } from "../../dialect.ts";
import { columns, gatedRows, interleaved, is, paddedRows, rows, whole } from "../../parts/megatron/cuts.ts";
import { distMambaRules, sharedMambaRules } from "../../parts/megatron/mamba-rules.ts";
import type { FalconH1Dims } from "../dims.ts";

const MIXER = "mamba_mixer.";

/** Older releases of Bridge stored the norm as a part of both modules that it feeds; this is one of the two. */
export const OLD_NORM = `${MIXER}in_proj.layer_norm_weight`;

const hybrid = (name: string, role: string, cut = rows): Rule<FalconH1Dims> => ({
  ...{ name, on: ["hybrid"], is: is(role, cut) },
});
const mlp = (name: string, role: string, cut = rows): Rule<FalconH1Dims> => ({
  ...{ name, on: ["mlp"], is: is(role, cut) },
});

export const rules: readonly Rule<FalconH1Dims>[] = [
  { name: "embedding.word_embeddings.weight", stage: "first", is: is("embed", paddedRows) },

  { ...hybrid("norm.weight", "norm", whole), also: [OLD_NORM] },
  { ...hybrid("self_attention.linear_qkv.layer_norm_weight", "norm", whole), copy: true, readOnly: true },

  ...sharedMambaRules<FalconH1Dims>(["hybrid"], MIXER),
  ...distMambaRules<FalconH1Dims>(["hybrid"], MIXER),

  { name: "self_attention.linear_qkv.weight", on: ["hybrid"], is: interleaved() },
  hybrid("self_attention.linear_proj.weight", "attn.o", columns),

  mlp("mlp.linear_fc1.layer_norm_weight", "norm", whole),
  { name: "mlp.linear_fc1.weight", on: ["mlp"], is: gatedRows("mlp.gate", "mlp.up") },
  mlp("mlp.linear_fc2.weight", "mlp.down", columns),

  {
    name: "decoder.final_norm.weight",
    also: ["decoder.final_layernorm.weight"],
    stage: "last",
    is: is("final.norm", whole),
  },
  { name: "output_layer.weight", stage: "last", is: is("head", paddedRows) },
  {
    ...{ name: "output_layer.weight", copy: true, readOnly: true, when: (d) => d.tied === 1 },
    is: is("embed", paddedRows),
  },
];
