/** The keys with which llama.cpp loads a Nemotron-H model, and what it cannot compute. */
import type { ConfigInput } from "../../dialect.ts";
import type { Limit } from "../../parts/gguf/dialect.ts";
import { mambaKeys, mambaLimits } from "../../parts/gguf/mamba-keys.ts";
import type { Config, Settings } from "../../structure.ts";
import type { NemotronHSettings } from "../settings.ts";
import { ARCHITECTURES, STEP_PATTERN } from "./config.ts";

/** llama.cpp's limits of blocks and of experts in a layer. */
const MAX_BLOCKS = 512;
const MAX_EXPERTS = 1024;
/** The genuine converter writes this, whatever the model says. */
const CONTEXT = 1_048_576;

export function writeConfig({ settings, passthrough }: ConfigInput): {
  readonly config: Config;
  readonly notes: readonly string[];
} {
  const s = settings as NemotronHSettings & Readonly<Record<string, number>>; // the settings of this family
  const letters = [...s.pattern];
  const hasExperts = letters.includes("E");
  const steps = Number(s.mtpSteps ?? 0);
  const perBlock = (of: (letter: string) => number, ofStep: number) => [
    ...letters.map(of),
    ...new Array<number>(steps).fill(ofStep),
  ];
  const ffnOf = (letter: string) => (letter === "-" ? s.ffn! : letter === "E" ? s.moeFfn! : 0);
  const keys: Record<string, unknown> = {
    block_count: letters.length + steps,
    context_length: passthrough.maxPositions ?? CONTEXT,
    embedding_length: s.hidden,
    feed_forward_length: perBlock(ffnOf, s.moeFfn ?? 0),
    // without attention layers llama.cpp still divides by it
    "attention.head_count": s.heads ?? 1,
    "attention.head_count_kv": perBlock((letter) => (letter === "*" ? s.kvHeads! : 0), s.kvHeads ?? 0),
    "attention.layer_norm_rms_epsilon": s.eps,
    "attention.layer_norm_epsilon": s.eps,
    ...(hasExperts && {
      expert_count: s.experts,
      expert_used_count: s.topK,
      expert_group_count: s.routeGroups,
      expert_group_used_count: s.routeTopGroups,
    }),
    vocab_size: s.vocab,
    "rope.dimension_count": Math.floor(s.hidden / Number(s.heads ?? 1)),
    ...mambaKeys(s),
    "rope.scaling.finetuned": false,
    ...(s.headDim !== undefined && {
      "attention.key_length": s.headDim,
      "attention.value_length": s.headDim,
    }),
    ...(hasExperts && {
      expert_feed_forward_length: s.moeFfn,
      expert_shared_feed_forward_length: s.moeShared,
      expert_shared_count: 1,
      expert_weights_norm: s.routeNormalise,
      expert_weights_scale: s.routeScale,
      ...(Number(s.latent) > 0 && { moe_latent_size: s.latent }),
    }),
    ...(steps > 0 && { nextn_predict_layers: steps }),
  };
  const architecture = hasExperts ? ARCHITECTURES.experts : ARCHITECTURES.dense;
  return {
    config: {
      "general.architecture": architecture,
      ...Object.fromEntries(Object.entries(keys).map(([key, value]) => [`${architecture}.${key}`, value])),
    },
    notes: [],
  };
}

/** What llama.cpp cannot compute, as of September 2026. */
export function limits(settings: Settings): readonly Limit[] {
  const s = settings as NemotronHSettings & Readonly<Record<string, unknown>>; // the settings of this family
  const { pattern } = s;
  const steps = Number(s.mtpSteps ?? 0);
  return [
    [
      pattern.includes("-") && pattern.includes("E"),
      "it makes every feed-forward layer one of experts, and this model has MLP layers too",
    ],
    [!pattern.includes("M"), "it needs a Mamba layer, and this model has none"],
    [!pattern.includes("*"), "it needs an attention layer, and this model has none"],
    ...mambaLimits(s),
    [
      s.mixerEps !== undefined,
      `it has one epsilon for all norms, and this model has ${s.eps} and ${s.mixerEps}`,
    ],
    [
      steps > 1 || (steps === 1 && s.mtpPattern !== STEP_PATTERN),
      `it knows one prediction step with the layers ${STEP_PATTERN}, and this model has ${steps} of ${String(s.mtpPattern)}`,
    ],
    [steps > 0 && !pattern.includes("E"), "it knows prediction steps only in models of experts"],
    [
      Number(s.headDim ?? 0) % 2 !== 0,
      `its files have the rows of heads in pairs, and this model has heads of ${s.headDim}`,
    ],
    [
      pattern.length + steps > MAX_BLOCKS,
      `it reads at most ${MAX_BLOCKS} blocks, and this model has ${pattern.length + steps}`,
    ],
    [
      Number(s.experts ?? 0) > MAX_EXPERTS,
      `it reads at most ${MAX_EXPERTS} experts a layer, and this model has ${s.experts}`,
    ],
  ]; // prettier-ignore
}
