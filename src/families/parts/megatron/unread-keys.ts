/** Keys of a Megatron record on which no model's forward pass depends, and why. */

import type { UnreadKeys } from "../config-keys.ts";
import { PROCESS_KEYS } from "./process-keys.ts";

/** Keys in a text, separated by spaces. */
export const unread = (why: string, source: string, keys: string): UnreadKeys => ({
  ...{ why, source, keys: keys.trim().split(/\s+/) },
});

export const CONFIG = "megatron/core/transformer/transformer_config.py";

export const COMMON_UNREAD_KEYS: readonly UnreadKeys[] = [
  unread(
    "which kernels run, not what they compute",
    CONFIG,
    `
    apply_rope_fusion attention_backend batch_invariant_backend batch_invariant_mode bias_activation_fusion
    bias_dropout_add_fusion bias_dropout_fusion bias_gelu_fusion bias_swiglu_fusion cache_mla_latents
    clone_scatter_output_in_embedding cuda_graph_impl cuda_graph_modules cuda_graph_retain_backward_graph
    cuda_graph_scope cuda_graph_scope_deprecated cuda_graph_use_single_mempool cuda_graph_warmup_steps
    deterministic_mode disable_jit_fuser disable_mamba_mem_eff_path enable_cuda_graph external_cuda_graph
    flash_attention_version flash_decode fused_residual_rmsnorm fused_single_qkv_rope gdp_cutedsl_kernel
    gdp_num_chunk_states_to_recompute get_attention_mask_from_fusion inference_cuda_graph_scope
    inference_disable_triton_nvls_kernels inference_fuse_tp_communication inference_grouped_gemm_backend
    inference_moe_disable_fused_quant_kernels inference_moe_token_dispatcher_type kitchen_attention_backend
    masked_softmax_fusion mcore_gpt megatron_legacy memory_efficient_layer_norm mla_down_proj_fusion
    mlp_chunks_for_prefill mlp_chunks_for_training moe_pad_experts_for_cuda_graph_inference moe_permute_fusion
    moe_router_fusion moe_single_grouped_bias moe_single_grouped_weight moe_use_grouped_tensor
    moe_use_legacy_grouped_gemm nccl_all_reduce_for_prefill no_persist_layer_norm onnx_safe openai_gelu
    persist_layer_norm scatter_embedding_sequence_parallel symmetric_ar_type test_mode transformer_impl
    use_flash_attn use_flashinfer_fused_rope use_fused_weighted_squared_relu use_grouped_gemm_for_dense_mlp
    use_grouped_gemm_for_shared_expert use_inference_optimized_layers use_kitchen_attention use_mamba_mem_eff_path
    use_te_activation_func use_transformer_engine_op_fuser
    `,
  ),
  unread(
    "precision, not the function",
    CONFIG,
    `
    activation_func_fp8_input_store attention_softmax_in_fp32 autocast_dtype disable_bf16_reduced_precision_matmul
    disable_parameter_transpose_cache enable_autocast first_last_layers_bf16 fp16 fp16_lm_cross_entropy fp4_param
    fp4_param_gather fp4_quantizer_factory fp4_recipe fp8_amax_compute_algo fp8_amax_history_len
    fp8_dot_product_attention fp8_interval fp8_margin fp8_multi_head_attention fp8_output_proj fp8_param
    fp8_param_gather fp8_quantizer_factory fp8_recipe fp8_wgrad keep_fp8_transpose_cache
    keep_fp8_transpose_cache_when_using_custom_fsdp keep_mtp_spec_in_bf16 logit_dtype
    mamba_inference_conv_states_dtype mamba_inference_ssm_states_dtype mamba_training_ssm_states_dtype
    megatron_amp_O2 moe_combine_bwd_dtype moe_dispatch_fwd_dtype moe_router_padding_for_fp8
    moe_router_padding_for_quantization native_amp_growth_interval native_amp_init_scale num_layers_at_end_in_bf16
    num_layers_at_start_in_bf16 params_dtype pipeline_dtype precision tp_only_amax_red
    `,
  ),
  unread(
    "only with latent attention",
    CONFIG,
    `
    kv_lora_rank q_lora_rank qk_head_dim qk_pos_emb_head_dim v_head_dim
    `,
  ),
  unread(
    "only with other kinds of attention",
    CONFIG,
    `
    cp_partition_mode csa_compress_ratios csa_window_size dsa_indexer_head_dim dsa_indexer_k_norm_epsilon
    dsa_indexer_k_norm_fp32 dsa_indexer_loss_coeff dsa_indexer_n_heads dsa_indexer_rope_interleaved
    dsa_indexer_rotate_activation dsa_indexer_scoring_relu dsa_indexer_skip_topk_offset dsa_indexer_topk
    dsa_indexer_topk_freq dsa_indexer_use_sparse_loss dsa_kernel_backend
    experimental_attention_variant_loss_scale_func
    `,
  ),
  unread(
    "only with kinds of layers that no pattern has",
    CONFIG,
    `
    gdp_num_householder linear_attention_freq linear_conv_kernel_dim linear_key_head_dim linear_num_key_heads
    linear_num_value_heads linear_value_head_dim
    `,
  ),
  unread(
    "only with use_mup",
    CONFIG,
    `
    mup_attn_scale_power mup_base_head_dim mup_base_hidden_size mup_embedding_mult mup_output_mult mup_width_mult
    `,
  ),
  unread(
    "only with enable_mhc_connections",
    CONFIG,
    `
    mhc_init_gating_factor mhc_num_residual_streams mhc_recompute_layer_num mhc_sinkhorn_iterations
    `,
  ),
  unread(
    "only if tokens are dropped",
    CONFIG,
    `
    moe_pad_expert_input_to_capacity moe_token_drop_policy
    `,
  ),
  unread(
    "the modules of a layer; their weights show them",
    "hybrid_builders.py",
    `
    hybrid_stack_spec mamba_stack_spec mapping_type spec
    `,
  ),
  unread(
    "how work is divided among processes and sent between them",
    CONFIG,
    `
    moe_deepep_num_sms moe_enable_deepep moe_extended_tp moe_flex_dispatcher_backend moe_flex_dispatcher_num_sms
    moe_hybridep_num_blocks_permute moe_hybridep_num_blocks_unpermute moe_hybridep_num_sms
    moe_hybridep_num_sms_preprocessing moe_hybridep_pad_uneven_dispatch_inputs moe_hybridep_pad_variable_tokens
    moe_ncclep_static_shape moe_ncclep_zero_copy moe_permute_fusion_into_hybridep moe_shared_expert_overlap
    moe_token_dispatcher_type
    `,
  ),
  unread(
    "where the vocabulary and its tokenizer came from",
    "nemo/collections/llm/gpt/model/ssm.py of NeMo 2",
    `
    hf_model_id hf_model_revision merge_file tokenizer tokenizer_library tokenizer_model_path tokenizer_name
    vocab_file
    `,
  ),
  unread(
    "what the record describes",
    "model_config.yaml, model.yaml, run_config.yaml",
    `
    _target_ checkpoint_version iteration name nemo_version restore_from_path target
    `,
  ),
  unread(
    "training, data, checkpoints, serving and processes, not the model",
    "megatron/training/arguments.py, megatron/core/model_parallel_config.py, megatron_mamba_config.yaml of NeMo 1",
    PROCESS_KEYS,
  ),
];
