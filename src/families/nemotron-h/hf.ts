/**
 * The Hugging Face dialect: names of the published checkpoints, and both spellings of config.json
 * (NVIDIA's remote code, and what transformers 5 writes).
 */
import { z } from "zod";
import { IsologitError } from "../../core/errors.ts";
import type { Asides, Config, Dialect, Rule, Seen, Structure, Understood } from "../define.ts";
import { ASIDES, configJson, keyOf } from "./hf-config.ts";
import { LETTERS, type NemotronSettings, refuseExcess } from "./roles.ts";
import { stacked } from "./stacked-experts.ts";

const once = (name: string, role: string, also: readonly string[] = []): Rule => ({
  name,
  also,
  is: (of) => of(role),
});
const every = (name: string, role: string): Rule => ({ name, on: "every", is: (of) => of(role) });
const rulesOf = (
  kind: "mamba" | "attention" | "mlp" | "moe",
  names: Readonly<Record<string, string>>,
): Rule[] =>
  Object.entries(names).map(([role, name]) => ({ name: `mixer.${name}`, on: [kind], is: (of) => of(role) }));
const mtp = (end: "first" | "last", name: string, role: string): Rule => ({
  name,
  on: "every",
  mtp: end,
  is: (of) => of(role),
});

const rules: readonly Rule[] = [
  // transformers up to 5.12 writes the singular for a model made from a config
  once("backbone.embeddings.weight", "embed", ["backbone.embedding.weight"]),
  every("norm.weight", "norm"),
  ...rulesOf("mamba", {
    "ssm.in": "in_proj.weight",
    "ssm.conv": "conv1d.weight",
    "ssm.conv.bias": "conv1d.bias",
    "ssm.A_log": "A_log",
    "ssm.D": "D",
    "ssm.dt_bias": "dt_bias",
    "ssm.norm": "norm.weight",
    "ssm.out": "out_proj.weight",
  }),
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
  // transformers 5 holds a layer's experts so, and writes them apart
  { name: "mixer.experts.up_proj", on: ["moe"], readOnly: true, is: stacked("moe.up") },
  { name: "mixer.experts.down_proj", on: ["moe"], readOnly: true, is: stacked("moe.down") },
  mtp("first", "eh_proj.weight", "mtp.join"),
  mtp("first", "enorm.weight", "mtp.embed_norm"),
  mtp("first", "hnorm.weight", "mtp.hidden_norm"),
  mtp("last", "final_layernorm.weight", "mtp.final_norm"),
  once("backbone.norm_f.weight", "final.norm"),
  once("lm_head.weight", "head"),
];

/** Layer kinds as transformers lists them; newer releases use the second pair of words. */
const WORDS: Readonly<Record<string, string>> = {
  mamba: "M",
  linear_attention: "M",
  attention: "*",
  full_attention: "*",
  mlp: "-",
  moe: "E",
};

const positive = z.number().int().positive();
const eps = z.number().positive();
/** zod's own number refuses infinity, which is this limit's usual value */
const limit = z.custom<number>(
  (value) => typeof value === "number" && value >= 0,
  "expected a number of at least 0",
);
/** Only these values are computed; any other changes the function. */
const off = z.literal(false).optional();

const Schema = z.object({
  hidden_size: positive,
  vocab_size: positive,
  layer_norm_epsilon: eps.optional(),
  rms_norm_eps: eps.optional(),
  norm_eps: eps.optional(),
  num_hidden_layers: positive.optional(),
  hybrid_override_pattern: z.string().optional(),
  layers_block_type: z.array(z.string()).optional(),
  mtp_hybrid_override_pattern: z.string().nullish(),
  mtp_layers_block_type: z.array(z.string()).nullish(),
  num_nextn_predict_layers: z.number().int().nonnegative().nullish(),
  mamba_num_heads: positive.optional(),
  mamba_head_dim: positive.optional(),
  ssm_state_size: positive.optional(),
  n_groups: positive.optional(),
  mamba_n_groups: positive.optional(),
  conv_kernel: positive.optional(),
  mamba_d_conv: positive.optional(),
  time_step_limit: z.tuple([limit, limit]).nullish(),
  mamba_dt_limit: z.tuple([limit, limit]).nullish(),
  num_attention_heads: positive.optional(),
  num_key_value_heads: positive.optional(),
  head_dim: positive.nullish(),
  attention_head_dim: positive.nullish(),
  intermediate_size: positive.optional(),
  n_routed_experts: positive.nullish(),
  num_experts_per_tok: positive.nullish(),
  moe_intermediate_size: positive.nullish(),
  moe_shared_expert_intermediate_size: positive.nullish(),
  moe_latent_size: positive.nullish(),
  n_group: positive.nullish(),
  topk_group: positive.nullish(),
  norm_topk_prob: z.boolean().nullish(),
  routed_scaling_factor: z.number().nullish(),
  attention_bias: off,
  mlp_bias: off,
  use_bias: off,
  mamba_proj_bias: off,
  use_conv_bias: z.literal(true).optional(),
  mamba_hidden_act: z.literal("silu").optional(),
  mlp_hidden_act: z.literal("relu2").optional(),
  tie_word_embeddings: off,
});

type HfConfig = z.infer<typeof Schema>;

function settings(config: Config, predicts: boolean): NemotronSettings {
  const parsed = Schema.safeParse(config);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    const key = issue.path.join(".");
    invalid(`${key} is ${JSON.stringify(config[String(issue.path[0])])}; ${issue.message}`);
  }
  const c = parsed.data;
  const pattern = patternOf(c);
  const has = (letter: string) => pattern.includes(letter) || mtpPattern.includes(letter);
  const mtpSteps = predicts ? (c.num_nextn_predict_layers ?? 0) : 0;
  const mtpPattern =
    mtpSteps > 0 ? (c.mtp_hybrid_override_pattern ?? lettersOf(c.mtp_layers_block_type ?? [])) : "";
  if (mtpSteps > 0 && mtpPattern === "")
    invalid("num_nextn_predict_layers is set, but no mtp_hybrid_override_pattern");
  if (has("M")) refuseUneven(c, "mamba_num_heads", c.n_groups === undefined ? "mamba_n_groups" : "n_groups");
  if (has("*")) refuseUneven(c, "num_attention_heads", "num_key_value_heads");
  const [dtMin, dtMax] = c.time_step_limit ?? c.mamba_dt_limit ?? [0, Infinity];
  const settings = {
    pattern,
    hidden: c.hidden_size,
    vocab: c.vocab_size,
    eps: c.layer_norm_epsilon ?? c.rms_norm_eps ?? c.norm_eps ?? 1e-5,
    dtMin,
    dtMax: dtMax >= 1e30 ? "Infinity" : dtMax,
    ...(has("M") && {
      mambaHeads: need(c, "mamba_num_heads"),
      mambaHeadDim: need(c, "mamba_head_dim"),
      state: need(c, "ssm_state_size"),
      groups: c.n_groups ?? need(c, "mamba_n_groups"),
      convKernel: c.conv_kernel ?? need(c, "mamba_d_conv"),
    }),
    ...(has("*") && {
      heads: need(c, "num_attention_heads"),
      kvHeads: need(c, "num_key_value_heads"),
      headDim: c.head_dim ?? need(c, "attention_head_dim"),
    }),
    ...(has("-") && { ffn: need(c, "intermediate_size") }),
    ...(has("E") && {
      experts: need(c, "n_routed_experts"),
      topK: need(c, "num_experts_per_tok"),
      moeFfn: need(c, "moe_intermediate_size"),
      moeShared: need(c, "moe_shared_expert_intermediate_size"),
      latent: c.moe_latent_size ?? 0,
      routeGroups: c.n_group ?? 1,
      routeTopGroups: c.topk_group ?? 1,
      routeNormalise: c.norm_topk_prob ?? true,
      routeScale: c.routed_scaling_factor ?? 1,
    }),
    ...(mtpSteps > 0 && { mtpPattern, mtpSteps }),
  } satisfies NemotronSettings;
  refuseExcess(settings, { file: "config.json" });
  return settings;
}

/**
 * Transformers reads no prediction layer, so what it saves has none, under a config that still tells of them. Where
 * one weight of theirs is there, all must be.
 */
function understood(config: Config, { tensors }: Seen): Understood {
  const predicts = tensors.length === 0 || tensors.some(({ name }) => name.startsWith("mtp."));
  const steps = predicts ? 0 : Number(config.num_nextn_predict_layers ?? 0);
  const notes =
    steps > 0 ? [`num_nextn_predict_layers is ${steps}, but no mtp.* weight is here: none is read`] : [];
  return { settings: settings(config, predicts), asides: asides(config), notes };
}

/** What other software's records say too. */
function asides(config: Config): Asides {
  const entries = Object.entries(ASIDES).flatMap(([ours, key]) => {
    const value = config[key];
    return typeof value === "number" || typeof value === "boolean" ? [[ours, value] as const] : [];
  });
  return Object.fromEntries(entries);
}

/** One letter a layer. A pattern and a list that disagree are refused: transformers would silently take the list. */
function patternOf(c: HfConfig): string {
  const listed = c.layers_block_type === undefined ? undefined : lettersOf(c.layers_block_type);
  // Megatron marks pipeline cuts with | and the prediction part with /
  const written = c.hybrid_override_pattern?.replace(/\/.*$/, "").replaceAll("|", "");
  const pattern = written ?? listed;
  if (pattern === undefined) invalid("it has neither hybrid_override_pattern nor layers_block_type");
  if (listed !== undefined && listed !== pattern) {
    invalid(`hybrid_override_pattern ${pattern} and layers_block_type (${listed}) disagree`);
  }
  const unknown = [...pattern].find((letter) => !Object.hasOwn(LETTERS, letter));
  if (unknown !== undefined)
    invalid(`hybrid_override_pattern has ${JSON.stringify(unknown)}, not one of M * - E`);
  if (c.num_hidden_layers !== undefined && c.num_hidden_layers !== pattern.length) {
    invalid(
      `num_hidden_layers is ${c.num_hidden_layers}, but the pattern ${pattern} has ${pattern.length} layers`,
    );
  }
  return pattern;
}

function lettersOf(kinds: readonly string[]): string {
  return kinds
    .map((kind) =>
      Object.hasOwn(WORDS, kind) ? WORDS[kind] : invalid(`layers_block_type has ${JSON.stringify(kind)}`),
    )
    .join("");
}

/** Heads are shared out among groups; a rest would be left over. */
function refuseUneven(c: HfConfig, heads: keyof HfConfig, groups: keyof HfConfig): void {
  const [many, few] = [need(c, heads), need(c, groups)];
  if (many % few !== 0) invalid(`${heads} is ${many}, no multiple of ${groups}, ${few}`);
}

function need(c: HfConfig, key: keyof HfConfig): number {
  const value = c[key];
  return typeof value === "number" ? value : invalid(`${key} is missing`);
}

function invalid(message: string): never {
  throw new IsologitError("CONFIG_INVALID", message, { file: "config.json" });
}

/** Nothing is cut, and no row is padding. */
function uncut({ dims, layers }: Structure) {
  const main = layers.filter(({ stack }) => stack === "main").length;
  return { tp: 1, ep: 1, expertTp: 1, stages: [{ main, mtp: layers.length - main }], rows: dims.vocab! };
}

export const hf: Dialect = {
  id: "hf",
  rules,
  stacks: { main: "backbone.layers.{layer}.", mtp: "mtp.layers.{layer}." },
  // transformers 5 and vLLM, which read either; NVIDIA's remote code knows the stored name alone
  renamed: { stored: "backbone.", loaded: "model." },
  // saved by older remote code; the family has no positions, and loaders leave them out
  drop: [
    {
      match: /(^|\.)(rotary_emb\.(inv_freq|cos_cached|sin_cached)|position_ids|masked_bias)$/,
      why: "buffers that no forward pass reads",
    },
  ],
  objects: () => [],
  settings: understood,
  vocabulary: (config) => (typeof config.vocab_size === "number" ? config.vocab_size : undefined),
  shards: (_, model) => uncut(model),
  cut: uncut,
  config: configJson,
  keyOf,
};
