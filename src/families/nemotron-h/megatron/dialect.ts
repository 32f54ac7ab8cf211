/** Megatron's two dialects: keys of a distributed checkpoint, and modules of each rank. */
import type { Dialect } from "../../dialect.ts";
import { TRAINING_TENSORS } from "../../parts/megatron/left-out.ts";
import { distParallelism, planParallelism, rankParallelism } from "../../parts/megatron/parallelism.ts";
import type { Structure } from "../../structure.ts";
import type { NemotronHDims } from "../dims.ts";
import type { NemotronHLayerKind } from "../settings.ts";
import { settingsFrom, vocabularyIn } from "./config.ts";
import { configFor } from "./record.ts";
import { remarksOn } from "./remarks.ts";
import { distRules, rankRules } from "./rules.ts";
import { cutSizes } from "./shards.ts";

const stacks = {
  main: "decoder.layers.{layer}.",
  mtp: "mtp.layers.{outer}.mtp_model_layer.layers.{inner}.",
  step: "mtp.layers.{outer}.",
} as const satisfies Dialect["stacks"];

/** Modules whose extra state strict loaders require, by layer kind. Loaders ignore an entry that they do not need. */
const STATEFUL = {
  mamba: ["mixer.in_proj", "mixer.out_proj"],
  attention: ["self_attention.linear_qkv", "self_attention.linear_proj", "self_attention.core_attention"],
  mlp: ["mlp.linear_fc1", "mlp.linear_fc2"],
  moe: ["pre_mlp_layernorm", "mlp.shared_experts.linear_fc1", "mlp.shared_experts.linear_fc2"],
} as const satisfies Readonly<Record<NemotronHLayerKind, readonly string[]>>;
const STEP = ["eh_proj", "enorm", "hnorm", "final_layernorm"];

/** The name of an entry has its number and their count: experts are numbered, every other entry is 0 of 1. */
function objects({ dims, layers }: Structure<NemotronHDims>): readonly string[] {
  const entry = (module: string, index = 0, of = 1) => `${module}._extra_state/shard_${index}_${of}`;
  // `layers` of this family gives no other kinds
  const names = layers.flatMap(({ stack, kind, index, inner, of }) => {
    const outer = String(Math.floor(index / of));
    const prefix = stacks[stack]
      .replace("{layer}", String(index))
      .replace("{outer}", outer)
      .replace("{inner}", String(inner));
    const step =
      stack === "mtp" && inner === 0 ? STEP.map((name) => stacks.step.replace("{outer}", outer) + name) : [];
    const latent = kind === "moe" && dims.latent > 0 ? ["mlp.fc1_latent_proj", "mlp.fc2_latent_proj"] : [];
    const experts = kind === "moe" ? Array.from({ length: dims.experts }, (_, expert) => expert) : [];
    return [
      ...step.map((name) => entry(name)),
      ...[...STATEFUL[kind as NemotronHLayerKind], ...latent].map((name) => entry(prefix + name)),
      ...["linear_fc1", "linear_fc2"].flatMap((name) =>
        experts.map((expert) => entry(`${prefix}mlp.experts.experts.${name}`, expert, dims.experts)),
      ),
    ];
  });
  return [...names, entry("decoder.final_norm"), entry("output_layer")];
}

const cutsOf = ({ dims }: Structure<NemotronHDims>) => ({ sizes: cutSizes, moeFfn: dims.moeFfn });

const shared = {
  ...{ stacks, drop: TRAINING_TENSORS, settings: settingsFrom, vocabulary: vocabularyIn, config: configFor },
  keyRemarks: remarksOn,
};

export const megatron: Dialect<NemotronHDims> = {
  ...shared,
  id: "megatron",
  rules: distRules,
  objects,
  parallelism: distParallelism,
  cut: (model, ranks) => planParallelism(model, ranks, false, cutsOf(model)),
};

export const megatronRanks: Dialect<NemotronHDims> = {
  ...shared,
  id: "megatron-ranks",
  rules: rankRules,
  ranked: true,
  // files of torch.save hold the state dict of a module; their loaders require no such entries
  objects: () => [],
  parallelism: (facts, model, config) => rankParallelism(facts, model, config, cutsOf(model)),
  cut: (model, ranks) => planParallelism(model, ranks, true, cutsOf(model)),
};
