/** Megatron's dialects of a GPTModel: a distributed checkpoint, the same as a hybrid model, and modules of each rank. */
import type { ConfigInput, Dialect, ObservedFacts, ParsedConfig } from "../../dialect.ts";
import type { Config, Structure } from "../../structure.ts";
import { refuseOtherValues } from "../config-keys.ts";
import { recordRemarks } from "../megatron/fixed-keys.ts";
import { TRAINING_TENSORS } from "../megatron/left-out.ts";
import { type CutSize, distParallelism, planParallelism, rankParallelism } from "../megatron/parallelism.ts";
import { FIXED_KEYS, KNOWN_KEYS } from "./keys.ts";
import { type GptModel, isHybridForm, readGpt, vocabularyIn } from "./read.ts";
import { distRules, rankRules } from "./rules.ts";
import type { GptDims, GptTraits } from "./traits.ts";
import { gptConfig } from "./write.ts";

/** What a family says of its models in Megatron. */
export interface GptFamily extends GptTraits {
  /** settings of a model that a record describes. @throws UNSUPPORTED if the family has no such model */
  parse(model: GptModel, config: Config): Pick<ParsedConfig, "settings" | "passthrough">;
  /** what a record must say. @throws PLAN_IMPOSSIBLE if Megatron has no such model */
  describe(input: ConfigInput): GptModel;
  /** NeMo 2's class of the config record */
  nemoClass(input: ConfigInput): string;
}

const drop: Dialect["drop"] = [
  ...TRAINING_TENSORS,
  { match: /(^|\.)rotary_pos_emb\.inv_freq$/, why: "frequencies that the config gives" },
];

export function gptDialects<D extends GptDims>(family: GptFamily): readonly Dialect<D>[] {
  const cuts = ({ dims }: Structure<D>) => ({ sizes: cutSizes, moeFfn: dims.moeFfn ?? 0 });
  const block = { main: "decoder.layers.{outer}." };
  const shared = {
    ...{ drop, vocabulary: vocabularyIn },
    settings(config: Config, facts: ObservedFacts): ParsedConfig {
      const hasExperts = (config.num_moe_experts ?? config.num_experts ?? null) !== null;
      refuseOtherValues(
        config,
        FIXED_KEYS,
        (where) => where !== "many steps" && (where !== "E" || hasExperts),
      );
      const { model, notes } = readGpt(config, facts);
      return { ...family.parse(model, config), notes };
    },
    config: (input: ConfigInput) => gptConfig(family.describe(input), family.nemoClass(input), input),
    keyRemarks: (config: Config) => recordRemarks(config, KNOWN_KEYS),
  };
  const dist: Dialect<D> = {
    ...shared,
    ...{ id: "megatron", rules: distRules<D>(family), stacks: block },
    stacksLayers: hasEqualBlocks,
    objects: (model) => stateObjects(model, hasEqualBlocks(model)),
    parallelism: distParallelism,
    cut: (model, ranks) => planParallelism(model, ranks, false, cuts(model)),
  };
  return [
    dist,
    {
      ...dist,
      ...{ id: "megatron-hybrid", variantOf: "megatron", stacks: { main: "decoder.layers.{layer}." } },
      reads: isHybridForm,
      stacksLayers: () => false,
    },
    {
      ...shared,
      ...{ id: "megatron-ranks", rules: rankRules<D>(family), stacks: block, ranked: true },
      // files of torch.save hold the state dict of a module; their loaders require no such entries
      objects: () => [],
      parallelism: (facts, model, config) => rankParallelism(facts, model, config, cuts(model)),
      cut: (model, ranks) => planParallelism(model, ranks, true, cuts(model)),
    },
  ];
}

/** Whether all blocks have the same kinds of layers: Megatron then stacks them. */
function hasEqualBlocks({ layers }: Structure): boolean {
  return layers.every(({ kind, inner }) => kind === layers[inner]!.kind);
}

function cutSizes({ dims: d, layers }: Structure<GptDims>): readonly CutSize[] {
  const has = (kind: string) => layers.some((layer) => layer.kind === kind);
  return [
    { what: "attention heads", size: d.heads, parts: "tp" },
    { what: "rows of queries, keys and values", size: d.q + 2 * d.kv, parts: "tp" },
    ...(has("mlp") ? [{ what: "MLP rows", size: d.ffn, parts: "tp" } as const] : []),
    ...(has("moe") ? [{ what: "rows of an expert", size: d.moeFfn ?? 0, parts: "expertTp" } as const] : []),
  ];
}

/** Modules whose extra state strict loaders require, by kind of layer. Loaders ignore an entry that they do not need. */
const STATEFUL: Readonly<Record<string, readonly string[]>> = {
  mlp: ["mlp.linear_fc1", "mlp.linear_fc2"],
  moe: ["pre_mlp_layernorm"],
};
const ATTENTION_STATEFUL = ["linear_qkv", "linear_proj", "core_attention"].map(
  (name) => `self_attention.${name}`,
);
const QK_NORMS = ["self_attention.q_layernorm", "self_attention.k_layernorm"];

/** The name of an entry has its number and their count: those of a stack are numbered by block, those of experts by expert too. */
function stateObjects<D extends GptDims>(
  { dims, layers }: Structure<D>,
  stacked: boolean,
): readonly string[] {
  const blocks = Math.max(...layers.map(({ index, of }) => Math.floor(index / of))) + 1;
  const names = layers.flatMap(({ kind, index, of }) => {
    const block = Math.floor(index / of);
    const prefix = stacked ? "decoder.layers." : `decoder.layers.${block}.`;
    const [number, count] = stacked ? [String(block), String(blocks)] : ["0", "1"];
    const modules = STATEFUL[kind] ?? [...ATTENTION_STATEFUL, ...(dims.qkNorm === 1 ? QK_NORMS : [])];
    const experts = kind === "moe" ? Array.from({ length: dims.experts ?? 0 }, (_, expert) => expert) : [];
    return [
      ...modules.map((module) => `${prefix}${module}._extra_state/shard_${number}_${count}`),
      ...["linear_fc1", "linear_fc2"].flatMap((name) =>
        experts.map((expert) => {
          const [at, all] = stacked
            ? [`${number}.${expert}`, `${count}.${dims.experts}`]
            : [expert, dims.experts];
          return `${prefix}mlp.experts.experts.${name}._extra_state/shard_${at}_${all}`;
        }),
      ),
    ];
  });
  return [...names, "decoder.final_layernorm._extra_state/shard_0_1"];
}
