/** What every family must do, by one suite, over random settings of each. */
import { type FamilyTrial, familyConformance } from "../../src/conformance/families.ts";
import { families } from "../../src/families/index.ts";
import type { Config } from "../../src/families/structure.ts";

type Random = Parameters<FamilyTrial["config"]>[0];

/** Keys of models with attention and Mamba, of one hidden width. */
function hybrid(random: Random, hidden: number): Config {
  const few = () => 1 + random(3);
  const maybe = () => random(2) === 0;
  // llama.cpp has no norm over several groups, and no biases of a mixer
  const [kvHeads, groups] = [few(), random(3) > 0 ? 1 : few()];
  const heads = groups * few();
  return {
    hidden_size: heads * hidden,
    vocab_size: 31,
    intermediate_size: 11 * few(),
    num_attention_heads: kvHeads * few(),
    num_key_value_heads: kvHeads,
    head_dim: 12,
    attention_bias: maybe(),
    mamba_n_heads: heads,
    mamba_n_groups: groups,
    mamba_d_state: 13,
    mamba_proj_bias: random(4) === 0,
    tie_word_embeddings: maybe(),
  };
}

/** Random configs in each family's first dialect, widths all unlike. */
const CONFIGS: Readonly<Record<string, FamilyTrial["config"]>> = {
  "nemotron-h"(random) {
    const kinds = ["M*-", "M*E", "M*-E"][random(3)]!;
    const letters = (most: number) =>
      Array.from({ length: 1 + random(most) }, () => kinds[random(kinds.length)]).join("");
    const few = () => 1 + random(3);
    const [kvHeads, groups] = [few(), few()];
    const mtp =
      random(3) > 0 ? {} : { num_nextn_predict_layers: few(), mtp_hybrid_override_pattern: letters(2) };
    return {
      model_type: "nemotron_h",
      hybrid_override_pattern: letters(8),
      hidden_size: 7 * few(),
      vocab_size: 31,
      intermediate_size: 11 * few(),
      num_attention_heads: kvHeads * few(),
      num_key_value_heads: kvHeads,
      head_dim: 10,
      mamba_num_heads: groups * few(),
      mamba_head_dim: 3,
      ssm_state_size: 13,
      n_groups: groups,
      conv_kernel: 4,
      n_routed_experts: 1 + few(),
      num_experts_per_tok: 2,
      moe_intermediate_size: 17,
      moe_shared_expert_intermediate_size: 19,
      ...(random(2) === 0 && { moe_latent_size: 6 }),
      ...mtp,
    };
  },
  llama(random) {
    const few = () => 1 + random(3);
    const maybe = () => random(2) === 0;
    const kvHeads = few();
    const model_type = ["llama", "mistral", "qwen2", "qwen3"][random(4)]!;
    const own = {
      llama: { attention_bias: maybe(), mlp_bias: maybe() },
      mistral: { sliding_window: maybe() ? 8 : null },
      qwen2: { use_sliding_window: maybe(), sliding_window: 8, max_window_layers: random(3) },
      qwen3: { attention_bias: maybe() },
    };
    return {
      model_type,
      num_hidden_layers: few(),
      hidden_size: 7 * few(),
      vocab_size: 31,
      intermediate_size: 11 * few(),
      num_attention_heads: kvHeads * few(),
      num_key_value_heads: kvHeads,
      head_dim: 6,
      tie_word_embeddings: maybe(),
      ...own[model_type as keyof typeof own],
    };
  },
  mixtral(random) {
    const few = () => 1 + random(3);
    const maybe = () => random(2) === 0;
    const kvHeads = few();
    const model_type = ["mixtral", "qwen3_moe"][random(2)]!;
    const experts = 2 + random(3);
    const own = {
      mixtral: { num_local_experts: experts, sliding_window: maybe() ? 8 : null },
      qwen3_moe: {
        ...{ num_experts: experts, moe_intermediate_size: 13, norm_topk_prob: maybe() },
        ...{ decoder_sparse_step: 1 + random(2), mlp_only_layers: maybe() ? [0] : [] },
        ...{ use_sliding_window: maybe(), sliding_window: 8, attention_bias: maybe() },
      },
    };
    return {
      model_type,
      num_hidden_layers: few(),
      hidden_size: 7 * few(),
      vocab_size: 31,
      intermediate_size: 11 * few(),
      num_attention_heads: kvHeads * few(),
      num_key_value_heads: kvHeads,
      head_dim: 6,
      num_experts_per_tok: 2,
      tie_word_embeddings: maybe(),
      ...own[model_type as keyof typeof own],
    };
  },
  bamba(random) {
    const few = () => 1 + random(3);
    const maybe = () => random(2) === 0;
    const num_hidden_layers = 1 + few();
    return {
      ...{ model_type: "bamba", num_hidden_layers, mlp_bias: maybe() },
      attn_layer_indices: Array.from({ length: num_hidden_layers }, (_, i) => i).filter(maybe),
      ...hybrid(random, 7 * few()),
    };
  },
  falcon_h1(random) {
    const few = () => 1 + random(3);
    const maybe = () => random(2) === 0;
    // Megatron-Bridge has only models without biases
    const noBias = { attention_bias: false, mlp_bias: false, projectors_bias: false, mamba_proj_bias: false };
    return {
      ...{ model_type: "falcon_h1", num_hidden_layers: few(), mlp_bias: maybe(), projectors_bias: maybe() },
      ...{ mamba_rms_norm: maybe(), mamba_norm_before_gate: maybe(), mamba_d_ssm: null },
      ...hybrid(random, 7 * few()),
      ...(maybe() && noBias),
    };
  },
  granitemoehybrid(random) {
    const few = () => 1 + random(3);
    const maybe = () => random(2) === 0;
    const num_hidden_layers = few();
    return {
      ...{
        model_type: "granitemoehybrid",
        num_hidden_layers,
        position_embedding_type: maybe() ? "rope" : null,
      },
      layer_types: Array.from({ length: num_hidden_layers }, () => (maybe() ? "attention" : "mamba")),
      ...{ num_local_experts: maybe() ? 0 : 1 + few(), num_experts_per_tok: 1 + random(2) },
      shared_intermediate_size: 17,
      ...hybrid(random, 7 * few()),
    };
  },
  nemotron(random) {
    const few = () => 1 + random(3);
    const maybe = () => random(2) === 0;
    const kvHeads = few();
    const heads = kvHeads * few();
    return {
      model_type: "nemotron",
      num_hidden_layers: few(),
      hidden_size: maybe() ? 12 * heads : 7 * few(), // llama.cpp has only queries of the hidden width
      vocab_size: 31,
      intermediate_size: 11 * few(),
      num_attention_heads: heads,
      num_key_value_heads: kvHeads,
      head_dim: 12,
      attention_bias: maybe(),
      mlp_bias: maybe(),
    };
  },
};

/** Which software's config record a dialect is tried with. */
const SOFTWARE: Readonly<Record<string, string>> = {
  hf: "hf",
  megatron: "bridge",
  "megatron-ranks": "megatron",
};

for (const family of families) familyConformance(family, { config: CONFIGS[family.id]!, software: SOFTWARE });
