/** Keys of a record of Megatron's GPTModel: those with one supported value, those that record.ts reads, and those that nothing reads. */
import type { OnlyKey } from "../config-keys.ts";
import { ATTENTION, COMMON_FIXED_KEYS, CORE, NOTED_KEYS, OFF, ROUTER } from "../megatron/fixed-keys.ts";
import { COMMON_UNREAD_KEYS, unread } from "../megatron/unread-keys.ts";

const CONFIG = `${CORE}transformer/transformer_config.py`;
const MLP = `${CORE}transformer/mlp.py`;

export const FIXED_KEYS: readonly OnlyKey[] = [
  {
    ...{ key: "rotary_interleaved", source: ATTENTION, only: OFF },
    does: "rotates neighbouring elements, for which the weights are in another order",
  },
  {
    ...{ key: "no_rope_freq", source: ATTENTION, only: [null] },
    does: "removes the positions of some layers",
  },
  {
    ...{ key: "mrope_section", source: CONFIG, only: [null] },
    does: "gives parts of a head positions of their own",
  },
  {
    ...{ key: "window_attn_skip_freq", source: CONFIG, only: [null] },
    does: "removes the window of some layers",
  },
  {
    ...{ key: "glu_linear_offset", source: MLP, only: [0, null] },
    does: "adds a number to one half of gated MLPs",
  },
  {
    ...{ key: "moe_mlp_glu_interleave_size", source: MLP, only: [null] },
    does: "interleaves the two halves of gated experts",
  },
  { ...{ key: "mtp_num_layers", source: CONFIG, only: [null, 0] }, does: "adds prediction layers" },
  { ...{ key: "moe_latent_size", source: CONFIG, only: [null, 0], on: "E" }, does: "narrows the experts" },
  {
    ...{ key: "moe_shared_expert_intermediate_size", source: CONFIG, only: [null, 0], on: "E" },
    does: "adds an expert for all tokens",
  },
  {
    ...{ key: "moe_router_score_function", source: ROUTER, only: ["softmax", null], on: "E" },
    does: "weighs experts by another function",
  },
  {
    ...{ key: "moe_router_enable_expert_bias", source: ROUTER, only: OFF, on: "E" },
    does: "corrects the router's scores",
  },
  {
    ...{ key: "moe_router_topk_scaling_factor", source: ROUTER, only: [null, 1], on: "E" },
    does: "multiplies the weights of experts",
  },
  {
    ...{ key: "moe_router_num_groups", source: ROUTER, only: [null, 1], on: "E" },
    does: "limits which experts a token may choose",
  },
  ...COMMON_FIXED_KEYS,
];

/** Keys that record.ts and rotary.ts read, and those of parallelism. */
const READ = `
  _target_ activation activation_func add_bias_linear add_qkv_bias apply_layernorm_1p bf16 bias
  encoder_seq_length expert_model_parallel_size expert_tensor_parallel_size ffn_hidden_size gated_linear_unit
  group_query_attention heterogeneous_layers_config high_freq_factor hidden_size hybrid_layer_pattern
  hybrid_override_pattern is_hybrid_model kv_channels layernorm_epsilon layernorm_zero_centered_gamma
  low_freq_factor make_vocab_size_divisible_by max_position_embeddings moe_ffn_hidden_size moe_layer_freq
  moe_router_pre_softmax moe_router_topk mscale mscale_all_dim norm_epsilon normalization num_attention_heads
  num_experts num_layers num_moe_experts num_query_groups old_context_len padded_vocab_size
  pipeline_model_parallel_size position_embedding_type qk_layernorm qkv_bias rope_scaling rope_scaling_factor
  rope_type rotary_base rotary_percent rotary_percentage rotary_scaling_factor
  rotary_seq_len_interpolation_factor scale_factor scale_positional_embedding seq_len_interpolation_factor
  seq_length share_embeddings_and_output_weights should_pad_vocab squared_relu swiglu
  tensor_model_parallel_size untie_embeddings_and_output_weights use_rope_scaling
  use_rotary_position_embeddings vocab_size window_size yarn_beta_fast yarn_beta_slow
  yarn_correction_range_round_to_int yarn_mscale yarn_mscale_all_dim yarn_original_max_position_embeddings
  yarn_rotary_scaling_factor
`;

const SPECS = unread(
  "the modules of a layer; their weights show them",
  "nemo/collections/llm/gpt/model/base.py of NeMo 2",
  "generation_config transformer_layer_spec use_transformer_engine_full_layer_spec",
);

const UNREAD = unread(
  "only in other models than GPTModel, or where the residual stream is rounded",
  CONFIG,
  `
  add_position_embedding fp32_residual_connection hybrid_attention_ratio hybrid_mlp_ratio mamba_chunk_size
  mamba_head_dim mamba_num_groups mamba_num_heads mamba_state_dim moe_grouped_gemm moe_router_dtype
  moe_router_group_topk moe_shared_expert_glu_interleave_size mtp_hybrid_override_pattern
  relative_attention_max_distance relative_attention_num_buckets
  `,
);

/** Every key of the tables. */
export const KNOWN_KEYS: ReadonlySet<string> = new Set([
  ...READ.trim().split(/\s+/),
  ...[...FIXED_KEYS, ...NOTED_KEYS].map(({ key }) => key),
  ...[SPECS, UNREAD, ...COMMON_UNREAD_KEYS].flatMap(({ keys }) => keys),
]);
