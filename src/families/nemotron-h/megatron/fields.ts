/**
 * Config keys of Megatron and of the software around it, each said once: what it is called where, which setting it
 * holds, what may be read, and what is written where no setting says it.
 */
import { z } from "zod";
import type { Settings } from "../../structure.ts";

/** Whose record: NeMo 2's `config` of model.yaml, Megatron-Bridge's `model` of run_config.yaml, Megatron-LM's args. */
export type Software = "nemo2" | "bridge" | "megatron";

export interface Field {
  /** the setting it holds, or what travels though the forward pass does not depend on it */
  readonly ours?: string;
  /** by software where it differs; null: that one has no such key */
  readonly theirs: string | Readonly<Record<Software, string | null>>;
  /** also read so */
  readonly also?: readonly string[];
  /** only models with such a layer have it */
  readonly on?: "M" | "*" | "-" | "E";
  readonly value: z.ZodType;
  /** what the software means where the key is absent or null */
  readonly absent?: number;
  /** what it derives from others then, where no tensor shows something else; 0 for nothing */
  readonly derived?: (settings: Settings) => number;
  /** written, where no setting says it */
  readonly otherwise?: unknown;
  /** the values read are the only ones that are computed: what another does, as a verb */
  readonly does?: string;
  /** what Megatron takes where the key is absent from a record that says the rest, if that is another function */
  readonly silent?: unknown;
}

const count = z.number().int().positive();
const whole = z.number().int().nonnegative();
const positive = z.number().positive();
const text = z.string();
/** Only these values are computed; any other changes the function. */
const only = (...values: readonly (string | boolean)[]) =>
  z.custom((value) => values.some((one) => one === value), `expected ${values.map(String).join(" or ")}`);

/** A function written as a map with its dotted name, or as the name alone. */
const squaredRelu = z.custom((value) => {
  const name = value !== null && typeof value === "object" && "_target_" in value ? value._target_ : value;
  return typeof name !== "string" || /squared[-_]relu|lambda/.test(name);
}, "expected a squared relu");

const lm = (megatron: string | null, nemo: string | null = null, bridge = nemo) => ({
  nemo2: nemo,
  bridge,
  megatron,
});

function quotient(many: number, few: unknown): number {
  const value = many / Number(few);
  return Number.isSafeInteger(value) ? value : 0;
}

export const FIELDS: readonly Field[] = [
  { ours: "hidden", theirs: "hidden_size", value: count },
  { ours: "vocab", theirs: "vocab_size", value: count },
  { ours: "eps", theirs: lm("norm_epsilon", "layernorm_epsilon"), value: positive, absent: 1e-5 },

  {
    ours: "mambaHeads",
    theirs: "mamba_num_heads",
    on: "M",
    value: count,
    derived: ({ hidden, mambaHeadDim }) => quotient(2 * Number(hidden), mambaHeadDim),
  },
  { ours: "mambaHeadDim", theirs: "mamba_head_dim", on: "M", value: count },
  {
    ours: "groups",
    theirs: "mamba_num_groups",
    also: ["mamba_ssm_ngroups", "ngroups_mamba"],
    on: "M",
    value: count,
  },
  { ours: "state", theirs: "mamba_state_dim", on: "M", value: count },

  { ours: "heads", theirs: "num_attention_heads", on: "*", value: count },
  { ours: "kvHeads", theirs: "num_query_groups", on: "*", value: count },
  { theirs: lm("group_query_attention"), on: "*", value: z.boolean(), otherwise: true },
  {
    ours: "headDim",
    theirs: "kv_channels",
    on: "*",
    value: count,
    derived: ({ hidden, heads }) => quotient(Number(hidden), heads),
  },

  { ours: "ffn", theirs: "ffn_hidden_size", on: "-", value: count },

  { ours: "experts", theirs: lm("num_experts", "num_moe_experts"), on: "E", value: count },
  { ours: "topK", theirs: "moe_router_topk", on: "E", value: count },
  { ours: "moeFfn", theirs: "moe_ffn_hidden_size", on: "E", value: count },
  { ours: "moeShared", theirs: "moe_shared_expert_intermediate_size", on: "E", value: count },
  { ours: "latent", theirs: "moe_latent_size", on: "E", value: whole, absent: 0 },
  { ours: "routeGroups", theirs: "moe_router_num_groups", on: "E", value: count, absent: 1 },
  { ours: "routeTopGroups", theirs: "moe_router_group_topk", on: "E", value: count, absent: 1 },
  { ours: "routeScale", theirs: "moe_router_topk_scaling_factor", on: "E", value: positive, absent: 1 },
  {
    theirs: "moe_router_score_function",
    on: "E",
    value: only("sigmoid"),
    otherwise: "sigmoid",
    does: "weighs experts by another function",
    silent: "softmax",
  },
  {
    ...{ theirs: "moe_router_enable_expert_bias", on: "E", value: only(true), otherwise: true },
    ...{ does: "leaves the router's correction out", silent: false },
  },
  { theirs: "moe_router_dtype", on: "E", value: text, otherwise: "fp32" },
  { theirs: "moe_grouped_gemm", on: "E", value: z.boolean(), otherwise: true },

  { ours: "maxPositions", theirs: "seq_length", also: ["encoder_seq_length"], value: count },
  { theirs: lm("max_position_embeddings"), value: z.unknown() },
  { ours: "chunk", theirs: lm(null, null, "mamba_chunk_size"), value: count },
  { ours: "residualF32", theirs: "fp32_residual_connection", value: z.boolean() },

  {
    ...{ theirs: "normalization", value: only("RMSNorm"), otherwise: "RMSNorm" },
    does: "normalises by another rule",
  },
  {
    ...{ theirs: "position_embedding_type", value: only("none"), otherwise: "none" },
    does: "adds positions",
  },
  {
    ...{ theirs: "add_bias_linear", value: only(false), otherwise: false },
    does: "adds biases to linear layers",
  },
  {
    ...{ theirs: lm("swiglu", "gated_linear_unit"), value: only(false), otherwise: false },
    does: "gates the MLPs",
  },
  {
    ...{ theirs: lm("squared_relu"), value: only(true), otherwise: true },
    does: "changes the activation of MLPs and experts",
  },
  {
    // NeMo's own classes set it; a function cannot be passed to them by name
    theirs: lm(null, null, "activation_func"),
    also: ["activation"],
    value: squaredRelu,
    otherwise: { _call_: false, _target_: "megatron.core.activations.squared_relu" },
    does: "changes the activation of MLPs and experts",
  },
  {
    ...{ theirs: lm("untie_embeddings_and_output_weights"), value: only(true), otherwise: true },
    does: "makes the token table the head",
  },
  {
    ...{ theirs: lm(null, "share_embeddings_and_output_weights"), value: only(false), otherwise: false },
    does: "makes the token table the head",
  },
  { theirs: "is_hybrid_model", value: z.boolean(), otherwise: true },
  { theirs: "bf16", value: z.boolean() },
];

/** Megatron has no key for it: every mixer that loads these models has this many taps. */
export const CONV_KERNEL = 4;
/** Of the norm inside a Mamba mixer: a constant there (megatron/core/ssm/mamba_mixer.py), never the config's. */
export const MIXER_EPSILON = 1e-5;
/** They travel, but the forward pass does not depend on them. */
export const ASIDES = ["maxPositions", "chunk", "residualF32"];

/** Sigmoid scores of the chosen are divided by their sum, unless one expert is chosen. */
export function normalizes({ topK }: Settings): boolean {
  return Number(topK) > 1;
}

/** The names that a field may be read by. */
export function namesOf({ theirs, also = [] }: Field): readonly string[] {
  const written =
    typeof theirs === "string" ? [theirs] : Object.values(theirs).filter((name) => name !== null);
  return [...new Set([...written, ...also])];
}

export function nameIn({ theirs }: Field, software: Software): string | null {
  return typeof theirs === "string" ? theirs : theirs[software];
}
