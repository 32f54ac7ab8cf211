/**
 * config.json for a model that came from elsewhere: the keys of the published releases, which NVIDIA's remote code
 * and Transformers both load. Keys that say nothing of the model are left out, so that each takes its own default.
 */
import type { Described } from "../define.ts";

/** What travels, by the key that holds it here. */
export const ASIDES = {
  maxPositions: "max_position_embeddings",
  chunk: "chunk_size",
  residualF32: "residual_in_fp32",
} as const;

/** A setting, and the keys that say it: releases and Transformers differ in some. */
const KEYS: readonly (readonly [setting: string, ...keys: string[]])[] = [
  ["pattern", "hybrid_override_pattern"],
  ["hidden", "hidden_size"],
  ["vocab", "vocab_size"],
  ["eps", "layer_norm_epsilon", "rms_norm_eps"],
  ["mambaHeads", "mamba_num_heads"],
  ["mambaHeadDim", "mamba_head_dim"],
  ["state", "ssm_state_size"],
  ["groups", "n_groups"],
  ["convKernel", "conv_kernel"],
  ["heads", "num_attention_heads"],
  ["kvHeads", "num_key_value_heads"],
  ["headDim", "head_dim", "attention_head_dim"],
  ["ffn", "intermediate_size"],
  ["experts", "n_routed_experts"],
  ["topK", "num_experts_per_tok"],
  ["moeFfn", "moe_intermediate_size"],
  ["moeShared", "moe_shared_expert_intermediate_size"],
  ["routeGroups", "n_group"],
  ["routeTopGroups", "topk_group"],
  ["routeNormalise", "norm_topk_prob"],
  ["routeScale", "routed_scaling_factor"],
  ["mtpPattern", "mtp_hybrid_override_pattern"],
  ["mtpSteps", "num_nextn_predict_layers"],
];

/** The key that says a setting, by the name that the published releases give it. */
export function keyOf(setting: string): string | undefined {
  return KEYS.find(([name]) => name === setting)?.[1];
}

export function configJson({ settings, asides, dtype }: Pick<Described, "settings" | "asides" | "dtype">) {
  const config: Record<string, unknown> = {
    architectures: ["NemotronHForCausalLM"],
    model_type: "nemotron_h",
    num_hidden_layers: String(settings.pattern).length,
    torch_dtype: dtype,
    ...FIXED,
  };
  for (const [setting, ...keys] of KEYS) {
    if (settings[setting] !== undefined) for (const key of keys) config[key] = settings[setting];
  }
  for (const [ours, key] of Object.entries(ASIDES))
    if (asides[ours] !== undefined) config[key] = asides[ours];
  if (Number(settings.latent ?? 0) > 0) config.moe_latent_size = settings.latent;
  if (settings.experts !== undefined) config.n_shared_experts = 1;
  return { config: sorted(config), notes: [] };
}

/** The only values that are computed; some releases of a loader have other defaults. */
const FIXED = {
  attention_bias: false,
  mlp_bias: false,
  use_bias: false,
  mamba_proj_bias: false,
  use_conv_bias: true,
  mamba_hidden_act: "silu",
  mlp_hidden_act: "relu2",
  tie_word_embeddings: false,
  sliding_window: null,
};

/** By key, as every published config is. */
function sorted(config: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(config).sort(([a], [b]) => (a < b ? -1 : 1)));
}
