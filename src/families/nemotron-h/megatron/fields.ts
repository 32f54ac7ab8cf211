/**
 * Config keys of Megatron and related software that are read and written: the names in each software, the setting, the
 * allowed values, and the value that is written if there is no setting.
 */

import {
  anything,
  count,
  flag,
  type KeyValue,
  only,
  positive,
  text,
  valueThat,
  whole,
} from "../../parts/key-values.ts";
import type { Software } from "../../parts/megatron/software.ts";
import type { Settings } from "../../structure.ts";

export interface Field {
  /** the setting or passthrough value that the key holds */
  readonly setting?: string;
  /** name of the key, or a name for each software; null: that software has no such key */
  readonly key: string | Readonly<Record<Software, string | null>>;
  /** other names that are read */
  readonly also?: readonly string[];
  /** only models with a layer of this letter have the key */
  readonly on?: "M" | "*" | "-" | "E";
  readonly value: KeyValue;
  /** default of the software if the key is absent or null */
  readonly absent?: number;
  /** value that the software then derives from other settings, unless a tensor shows another; 0: none */
  readonly derived?: (settings: Settings) => number;
  /** value that is written if there is no setting */
  readonly otherwise?: unknown;
  /** if present, `value` allows only what is computed here, and this is the effect of another value; begins with a verb */
  readonly does?: string;
  /** Megatron's default in a record that lists the experts but not this key, if the default is another function */
  readonly silent?: unknown;
}

/** A function, written as a map with its dotted name or as the name alone. */
const squaredRelu = valueThat("a squared relu", (value) => {
  const name = value !== null && typeof value === "object" && "_target_" in value ? value._target_ : value;
  return typeof name !== "string" || /squared[-_]relu|lambda/.test(name);
});

/** The names of a key in Megatron-LM, NeMo 2 and Megatron-Bridge. */
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
  { setting: "hidden", key: "hidden_size", value: count },
  { setting: "vocab", key: "vocab_size", value: count },
  { setting: "eps", key: lm("norm_epsilon", "layernorm_epsilon"), value: positive, absent: 1e-5 },

  {
    setting: "mambaHeads",
    key: "mamba_num_heads",
    on: "M",
    value: count,
    derived: ({ hidden, mambaHeadDim }) => quotient(2 * Number(hidden), mambaHeadDim),
  },
  { setting: "mambaHeadDim", key: "mamba_head_dim", on: "M", value: count },
  {
    setting: "groups",
    key: "mamba_num_groups",
    also: ["mamba_ssm_ngroups", "ngroups_mamba"],
    on: "M",
    value: count,
  },
  { setting: "state", key: "mamba_state_dim", on: "M", value: count },

  { setting: "heads", key: "num_attention_heads", on: "*", value: count },
  { setting: "kvHeads", key: "num_query_groups", on: "*", value: count },
  { key: lm("group_query_attention"), on: "*", value: flag, otherwise: true },
  {
    setting: "headDim",
    key: "kv_channels",
    on: "*",
    value: count,
    derived: ({ hidden, heads }) => quotient(Number(hidden), heads),
  },

  { setting: "ffn", key: "ffn_hidden_size", on: "-", value: count },

  { setting: "experts", key: lm("num_experts", "num_moe_experts"), on: "E", value: count },
  { setting: "topK", key: "moe_router_topk", on: "E", value: count },
  { setting: "moeFfn", key: "moe_ffn_hidden_size", on: "E", value: count },
  { setting: "moeShared", key: "moe_shared_expert_intermediate_size", on: "E", value: count },
  { setting: "latent", key: "moe_latent_size", on: "E", value: whole, absent: 0 },
  { setting: "routeGroups", key: "moe_router_num_groups", on: "E", value: count, absent: 1 },
  { setting: "routeTopGroups", key: "moe_router_group_topk", on: "E", value: count, absent: 1 },
  { setting: "routeScale", key: "moe_router_topk_scaling_factor", on: "E", value: positive, absent: 1 },
  {
    key: "moe_router_score_function",
    on: "E",
    value: only("sigmoid"),
    otherwise: "sigmoid",
    does: "weighs experts by another function",
    silent: "softmax",
  },
  {
    ...{ key: "moe_router_enable_expert_bias", on: "E", value: only(true), otherwise: true },
    ...{ does: "leaves the router's correction out", silent: false },
  },
  { key: "moe_router_dtype", on: "E", value: text, otherwise: "fp32" },
  { key: "moe_grouped_gemm", on: "E", value: flag, otherwise: true },

  { setting: "maxPositions", key: "seq_length", also: ["encoder_seq_length"], value: count },
  { key: lm("max_position_embeddings"), value: anything },
  { setting: "chunk", key: lm(null, null, "mamba_chunk_size"), value: count },
  { setting: "residualF32", key: "fp32_residual_connection", value: flag },

  {
    ...{ key: "normalization", value: only("RMSNorm"), otherwise: "RMSNorm" },
    does: "normalises by another rule",
  },
  {
    ...{ key: "position_embedding_type", value: only("none"), otherwise: "none" },
    does: "adds positions",
  },
  {
    ...{ key: "add_bias_linear", value: only(false), otherwise: false },
    does: "adds biases to linear layers",
  },
  {
    ...{ key: lm("swiglu", "gated_linear_unit"), value: only(false), otherwise: false },
    does: "gates the MLPs",
  },
  {
    ...{ key: lm("squared_relu"), value: only(true), otherwise: true },
    does: "changes the activation of MLPs and experts",
  },
  {
    // NeMo's own classes set this value; a function cannot be passed to them by name
    key: lm(null, null, "activation_func"),
    also: ["activation"],
    value: squaredRelu,
    otherwise: { _call_: false, _target_: "megatron.core.activations.squared_relu" },
    does: "changes the activation of MLPs and experts",
  },
  {
    ...{ key: lm("untie_embeddings_and_output_weights"), value: only(true), otherwise: true },
    does: "makes the token table the head",
  },
  {
    ...{ key: lm(null, "share_embeddings_and_output_weights"), value: only(false), otherwise: false },
    does: "makes the token table the head",
  },
  { key: "is_hybrid_model", value: flag, otherwise: true },
  { key: "bf16", value: flag },
];

/** Taps of the convolution. Megatron has no key for them: its Mamba mixer always has this number. */
export const CONV_KERNEL = 4;
/** Passthrough values: they are copied to other configs, but the forward pass does not depend on them. */
export const PASSTHROUGH = ["maxPositions", "chunk", "residualF32"];

/** Whether Megatron divides the scores of the chosen experts by their sum: it does unless it chooses one expert. */
export function normalizesScores({ topK }: Settings): boolean {
  return Number(topK) > 1;
}

/** All names under which a field is read. */
export function namesOf({ key, also = [] }: Field): readonly string[] {
  const written = typeof key === "string" ? [key] : Object.values(key).filter((name) => name !== null);
  return [...new Set([...written, ...also])];
}

/** The name under which a field is written for a software; null: it is not written. */
export function nameIn({ key }: Field, software: Software): string | null {
  return typeof key === "string" ? key : key[software];
}
