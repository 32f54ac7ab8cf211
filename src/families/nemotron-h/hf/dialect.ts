/**
 * The Hugging Face dialect: the tensor names of published checkpoints, and both forms of config.json: that of NVIDIA's
 * remote code, and that of transformers 5.
 */
import type { Dialect, ObservedFacts, ParsedConfig, Passthrough, Rule } from "../../dialect.ts";
import { invalidKeyError, refuseOtherWeights } from "../../parts/config-json.ts";
import { placesOf } from "../../parts/config-keys.ts";
import { mambaRules } from "../../parts/mamba/hf-rules.ts";
import { stackExperts } from "../../parts/stacked-experts.ts";
import { wholeParallelism } from "../../parts/whole-parallelism.ts";
import type { Config } from "../../structure.ts";
import type { NemotronHDims } from "../dims.ts";
import { LETTERS, type NemotronHSettings, refuseExcess } from "../settings.ts";
import { keyOf, PASSTHROUGH_KEYS, writeConfig } from "./config.ts";
import { configJson } from "./config-json.ts";
import { prunedKeys } from "./pruned-keys.ts";

const once = (name: string, role: string, also: readonly string[] = []): Rule<NemotronHDims> => ({
  name,
  also,
  is: (of) => of(role),
});
const every = (name: string, role: string): Rule<NemotronHDims> => ({
  name,
  on: "every",
  is: (of) => of(role),
});
const rulesOf = (
  kind: "attention" | "mlp" | "moe",
  names: Readonly<Record<string, string>>,
): Rule<NemotronHDims>[] =>
  Object.entries(names).map(([role, name]) => ({ name: `mixer.${name}`, on: [kind], is: (of) => of(role) }));
const mtp = (end: "first" | "last", name: string, role: string): Rule<NemotronHDims> => ({
  name,
  on: "every",
  mtp: end,
  is: (of) => of(role),
});

const rules: readonly Rule<NemotronHDims>[] = [
  // transformers up to 5.12 writes the singular if a model was created from a config
  once("backbone.embeddings.weight", "embed", ["backbone.embedding.weight"]),
  every("norm.weight", "norm"),
  ...mambaRules<NemotronHDims>(["mamba"], "mixer."),
  ...rulesOf("attention", {
    "attn.q": "q_proj.weight",
    "attn.k": "k_proj.weight",
    "attn.v": "v_proj.weight",
    "attn.o": "o_proj.weight",
  }),
  ...rulesOf("mlp", { "mlp.up": "up_proj.weight", "mlp.down": "down_proj.weight" }),
  ...rulesOf("moe", {
    "moe.gate": "gate.weight",
    "moe.gate.bias": "gate.e_score_correction_bias",
    "moe.latent.in": "fc1_latent_proj.weight",
    "moe.up": "experts.{expert}.up_proj.weight",
    "moe.down": "experts.{expert}.down_proj.weight",
    "moe.latent.out": "fc2_latent_proj.weight",
    "moe.shared.up": "shared_experts.up_proj.weight",
    "moe.shared.down": "shared_experts.down_proj.weight",
  }),
  // transformers 5 holds the experts of a layer like this in memory, and writes them separately
  { name: "mixer.experts.up_proj", on: ["moe"], readOnly: true, is: stackExperts("moe.up") },
  { name: "mixer.experts.down_proj", on: ["moe"], readOnly: true, is: stackExperts("moe.down") },
  mtp("first", "eh_proj.weight", "mtp.join"),
  mtp("first", "enorm.weight", "mtp.embed_norm"),
  mtp("first", "hnorm.weight", "mtp.hidden_norm"),
  mtp("last", "final_layernorm.weight", "mtp.final_norm"),
  once("backbone.norm_f.weight", "final.norm"),
  once("lm_head.weight", "head"),
];

function readSettings(config: Config, predicts: boolean): NemotronHSettings {
  const pattern = patternOf(config);
  const mtpSteps = predicts ? configJson.need(config, "mtpSteps") : 0;
  const mtpPattern = mtpSteps > 0 ? configJson.read(config, "mtpPattern") : "";
  if (typeof mtpPattern !== "string" || (mtpSteps > 0 && mtpPattern === ""))
    invalidKeyError("num_nextn_predict_layers is set, but no mtp_hybrid_override_pattern");
  const has = placesOf(pattern + mtpPattern, mtpSteps);
  configJson.refuseOtherValues(config, has);
  const of = (name: string) => configJson.need(config, name);
  const [dtMin, dtMax] = configJson.read(config, "dtLimits") as [number, number | "Infinity"]; // the table parses it to this type
  const settings = {
    pattern,
    hidden: of("hidden"),
    vocab: of("vocab"),
    eps: of("eps"),
    dtMin,
    dtMax,
    ...(has("M") && {
      mambaHeads: of("mambaHeads"),
      mambaHeadDim: of("mambaHeadDim"),
      state: of("state"),
      groups: of("groups"),
      convKernel: of("convKernel"),
    }),
    ...(has("*") && { heads: of("heads"), kvHeads: of("kvHeads"), headDim: of("headDim") }),
    ...(has("-") && { ffn: of("ffn") }),
    ...(has("E") && {
      experts: of("experts"),
      topK: of("topK"),
      moeFfn: of("moeFfn"),
      moeShared: of("moeShared"),
      latent: of("latent"),
      routeGroups: of("routeGroups"),
      routeTopGroups: of("routeTopGroups"),
      routeNormalise: configJson.read(config, "routeNormalise") as boolean, // the table parses it to this type
      routeScale: of("routeScale"),
    }),
    ...(mtpSteps > 0 && { mtpPattern, mtpSteps }),
  } satisfies NemotronHSettings;
  if (has("M")) refuseUneven("mamba_num_heads", settings.mambaHeads, "n_groups", settings.groups);
  if (has("*")) refuseUneven("num_attention_heads", settings.heads, "num_key_value_heads", settings.kvHeads);
  refuseExcess(settings, { file: "config.json" });
  return settings;
}

/**
 * Transformers does not read prediction layers. It saves models without their weights, but the config still declares
 * them. If the checkpoint has one weight of a prediction layer, it must have all.
 */
function parseConfig(config: Config, { tensors, files }: ObservedFacts): ParsedConfig {
  if (files !== undefined) refuseOtherWeights(config, files);
  const predicts = tensors.length === 0 || tensors.some(({ name }) => name.startsWith("mtp."));
  const steps = predicts ? 0 : Number(config.num_nextn_predict_layers ?? 0);
  const notes =
    steps > 0
      ? [
          `num_nextn_predict_layers is ${steps}, but the checkpoint has no mtp.* weight: the model is read without prediction layers`,
        ]
      : [];
  return {
    settings: readSettings(config, predicts),
    passthrough: readPassthrough(config),
    notes,
    tied: config.tie_word_embeddings === true,
  };
}

/** Values that the configs of other dialects contain as well. */
function readPassthrough(config: Config): Passthrough {
  const entries = Object.entries(PASSTHROUGH_KEYS).flatMap(([name, key]) => {
    const value = config[key];
    return typeof value === "number" || typeof value === "boolean" ? [[name, value] as const] : [];
  });
  return Object.fromEntries(entries);
}

/** The layer pattern, one letter for each layer. */
function patternOf(config: Config): string {
  const pattern = configJson.read(config, "pattern");
  if (typeof pattern !== "string")
    invalidKeyError(
      "neither hybrid_override_pattern nor layers_block_type is present; one of them must list the kinds of the layers",
    );
  const unknown = [...pattern].find((letter) => !Object.hasOwn(LETTERS, letter));
  if (unknown !== undefined)
    invalidKeyError(`hybrid_override_pattern has ${JSON.stringify(unknown)}, not one of M * - E`);
  const layers = config.num_hidden_layers ?? pattern.length;
  if (layers !== pattern.length) {
    invalidKeyError(
      `num_hidden_layers is ${JSON.stringify(layers)}, but the pattern ${pattern} has ${pattern.length} layers`,
    );
  }
  return pattern;
}

/** Heads must divide evenly among groups. */
function refuseUneven(heads: string, many = 0, groups: string, few = 1): void {
  if (many % few !== 0) invalidKeyError(`${heads} is ${many}, which is not a multiple of ${groups}, ${few}`);
}

export const hf: Dialect<NemotronHDims> = {
  id: "hf",
  rules,
  stacks: { main: "backbone.layers.{layer}.", mtp: "mtp.layers.{layer}." },
  // transformers 5 and vLLM read both names; NVIDIA's remote code reads only the stored name
  renamed: { stored: "backbone.", loaded: "model." },
  // older remote code saved them; the family has no positions, and loaders ignore them
  drop: [
    {
      match: /(^|\.)(rotary_emb\.(inv_freq|cos_cached|sin_cached)|position_ids|masked_bias)$/,
      why: "buffers that no forward pass reads",
    },
  ],
  objects: () => [],
  settings: parseConfig,
  vocabulary: (config) => (typeof config.vocab_size === "number" ? config.vocab_size : undefined),
  parallelism: (_, model) => wholeParallelism(model),
  cut: wholeParallelism,
  config: writeConfig,
  keyOf,
  prunedKeys,
  keyRemarks: (config) => configJson.remarks(config),
  isSettingKey: (key) => configJson.isSettingKey(key),
  isUnreadKey: (key) => configJson.isUnreadKey(key),
};
