/**
 * The rules of Megatron's two dialects. Keys of a distributed checkpoint: Mamba's projection in named parts, experts stacked.
 * Modules of each rank: fused tensors, with numbers of their own for layers and experts.
 */
import type { Rule } from "../../dialect.ts";
import {
  columns,
  expertColumns,
  expertRows,
  interleaved,
  is,
  paddedRows,
  type RankCut,
  rows,
  whole,
} from "../../parts/megatron/cuts.ts";
import { distMambaRules, rankMambaRules, sharedMambaRules } from "../../parts/megatron/mamba-rules.ts";
import { stackExperts } from "../../parts/stacked-experts.ts";
import type { NemotronHDims } from "../dims.ts";
import type { NemotronHLayerKind } from "../settings.ts";

const layerRule = (
  kind: NemotronHLayerKind,
  name: string,
  role: string,
  cut: RankCut,
  also: readonly string[] = [],
) => ({ name, also, on: [kind], is: is(role, cut) }) satisfies Rule<NemotronHDims>;

/** The norm of a layer: part of a fused module, separate in unfused builds, and under one name for all kinds in NeMo's old converter. */
const norm = (kind: NemotronHLayerKind, name: string, also: readonly string[]): Rule<NemotronHDims> =>
  layerRule(kind, name, "norm", whole, also);

const OLD_CONVERTER = "mixer.in_proj.layer_norm_weight";

/** Rules of a distributed checkpoint that differ from those of ranks: Mamba's fused tensors and the experts. */
const DIST: readonly Rule<NemotronHDims>[] = [
  ...distMambaRules<NemotronHDims>(["mamba"]),
  { name: "mlp.experts.experts.linear_fc1.weight", on: ["moe"], is: stackExperts("moe.up") },
  { name: "mlp.experts.experts.linear_fc2.weight", on: ["moe"], is: stackExperts("moe.down") },
  ...(["moe.up", "moe.down"] as const).map(
    (role, i): Rule<NemotronHDims> => ({
      name: `mlp.experts.experts.{expert}.linear_fc${i + 1}.weight`,
      on: ["moe"],
      readOnly: true,
      is: is(role, whole),
    }),
  ),
];

const RANKS: readonly Rule<NemotronHDims>[] = [
  ...rankMambaRules<NemotronHDims>(["mamba"]),
  layerRule("moe", "mlp.experts.linear_fc1.weight{expert}", "moe.up", expertRows, [
    "mlp.experts.local_experts.{expert}.linear_fc1.weight",
  ]),
  layerRule("moe", "mlp.experts.linear_fc2.weight{expert}", "moe.down", expertColumns, [
    "mlp.experts.local_experts.{expert}.linear_fc2.weight",
  ]),
];

const rulesWith = (own: readonly Rule<NemotronHDims>[]): readonly Rule<NemotronHDims>[] => [
  { name: "embedding.word_embeddings.weight", stage: "first", is: is("embed", paddedRows) },
  { name: "embedding.word_embeddings.weight", stage: "mtp", is: is("embed", paddedRows) },

  norm("mamba", "mixer.in_proj.layer_norm_weight", ["norm.weight"]),
  norm("attention", "self_attention.linear_qkv.layer_norm_weight", ["input_layernorm.weight", OLD_CONVERTER]),
  norm("mlp", "mlp.linear_fc1.layer_norm_weight", ["pre_mlp_layernorm.weight", OLD_CONVERTER]),
  norm("moe", "pre_mlp_layernorm.weight", []),

  ...sharedMambaRules<NemotronHDims>(["mamba"]),

  { name: "self_attention.linear_qkv.weight", on: ["attention"], is: interleaved() },
  layerRule("attention", "self_attention.linear_proj.weight", "attn.o", columns),

  layerRule("mlp", "mlp.linear_fc1.weight", "mlp.up", rows),
  layerRule("mlp", "mlp.linear_fc2.weight", "mlp.down", columns),

  layerRule("moe", "mlp.router.weight", "moe.gate", whole),
  layerRule("moe", "mlp.router.expert_bias", "moe.gate.bias", whole),
  layerRule("moe", "mlp.fc1_latent_proj.weight", "moe.latent.in", whole),
  layerRule("moe", "mlp.fc2_latent_proj.weight", "moe.latent.out", whole),
  layerRule("moe", "mlp.shared_experts.linear_fc1.weight", "moe.shared.up", rows),
  layerRule("moe", "mlp.shared_experts.linear_fc2.weight", "moe.shared.down", columns),

  ...own,

  { name: "eh_proj.weight", on: "every", mtp: "first", is: is("mtp.join", rows) },
  { name: "enorm.weight", on: "every", mtp: "first", is: is("mtp.embed_norm", whole) },
  { name: "hnorm.weight", on: "every", mtp: "first", is: is("mtp.hidden_norm", whole) },
  { name: "final_layernorm.weight", on: "every", mtp: "last", is: is("mtp.final_norm", whole) },

  {
    name: "decoder.final_norm.weight",
    also: ["decoder.final_layernorm.weight"],
    stage: "last",
    is: is("final.norm", whole),
  },
  { name: "output_layer.weight", stage: "last", is: is("head", paddedRows) },
];

/** Keys of a distributed checkpoint: shapes of the whole model, layers counted over all stages. */
export const distRules = rulesWith(DIST);
/** Modules of one rank. */
export const rankRules = rulesWith(RANKS);
