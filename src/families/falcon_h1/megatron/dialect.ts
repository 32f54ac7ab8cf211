/** The dialect of Megatron-Bridge's FalconH1Model: a distributed checkpoint with keys for each layer. */
import type { Dialect } from "../../dialect.ts";
import { vocabularyIn } from "../../parts/gpt/read.ts";
import { recordRemarks } from "../../parts/megatron/fixed-keys.ts";
import { TRAINING_TENSORS } from "../../parts/megatron/left-out.ts";
import { distParallelism, planParallelism } from "../../parts/megatron/parallelism.ts";
import type { Structure } from "../../structure.ts";
import type { FalconH1Dims } from "../dims.ts";
import { KNOWN_KEYS } from "./keys.ts";
import { readRecord } from "./read.ts";
import { rules } from "./rules.ts";
import { writeRecord } from "./write.ts";

/** Modules of a layer whose extra state strict loaders require. Loaders ignore an entry that they do not need. */
const STATEFUL = [
  ...["norm", "mamba_mixer.in_proj", "mamba_mixer.out_proj"],
  ...["linear_qkv", "linear_proj", "core_attention"].map((name) => `self_attention.${name}`),
  ...["mlp.linear_fc1", "mlp.linear_fc2"],
];

function objects({ layers }: Structure): readonly string[] {
  const blocks = layers.filter(({ kind }) => kind === "hybrid");
  const modules = blocks.flatMap(({ index, of }) =>
    STATEFUL.map((module) => `decoder.layers.${index / of}.${module}`),
  );
  return [...modules, "decoder.final_norm", "output_layer"].map(
    (module) => `${module}._extra_state/shard_0_1`,
  );
}

export const megatron: Dialect<FalconH1Dims> = {
  id: "megatron",
  rules,
  stacks: { main: "decoder.layers.{outer}." },
  drop: TRAINING_TENSORS,
  objects,
  settings: readRecord,
  keyRemarks: (config) => recordRemarks(config, KNOWN_KEYS),
  vocabulary: vocabularyIn,
  parallelism: distParallelism,
  cut: (model, ranks) => planParallelism(model, ranks, false, { sizes: () => [], moeFfn: 0 }),
  config: writeRecord,
};
