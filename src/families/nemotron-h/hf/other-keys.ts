/**
 * Keys of config.json that hold no setting: those that engines use, with the values that are computed here, and those on
 * which the forward pass does not depend. Together with setting-keys.ts these are all keys that Transformers, NVIDIA's own
 * code, vLLM and Megatron-Bridge read for this family. A key in no table is unknown, and `check` names it.
 */
import type { OnlyKey, UnreadKeys } from "../../parts/config-keys.ts";
import { COMMON_ONLY_KEYS, COMMON_UNREAD_KEYS } from "../../parts/transformers-keys.ts";
import { SOURCES, type Source } from "./setting-keys.ts";

export const ONLY_KEYS: readonly OnlyKey[] = [
  {
    ...{ key: "attention_bias", source: SOURCES.remote, only: [false, null], written: true },
    does: "adds biases to the attention projections",
  },
  {
    ...{ key: "mlp_bias", source: SOURCES.model, only: [false, null], written: true },
    does: "adds biases to the MLP and latent projections",
  },
  {
    ...{ key: "use_bias", source: SOURCES.model, only: [false, null], written: true },
    does: "adds biases to Mamba's projections",
  },
  {
    ...{ key: "mamba_proj_bias", source: SOURCES.remote, only: [false, null], written: true },
    does: "adds biases to Mamba's projections",
  },
  {
    ...{ key: "use_conv_bias", source: SOURCES.model, only: [true], written: true },
    does: "drops the bias of Mamba's convolution",
  },
  {
    // Transformers prefers it to use_conv_bias; NVIDIA's code and vLLM prefer use_conv_bias
    ...{ key: "mamba_conv_bias", source: SOURCES.config, only: [true, null] },
    does: "drops the bias of Mamba's convolution in Transformers 5, whatever the value of use_conv_bias",
  },
  {
    ...{ key: "mamba_hidden_act", source: SOURCES.model, only: ["silu", "swish"], written: true },
    does: "changes the activation of Mamba's convolution",
  },
  {
    ...{ key: "mlp_hidden_act", source: SOURCES.model, only: ["relu2"], written: true },
    does: "changes the activation of MLPs and experts",
  },
  {
    ...{ key: "n_shared_experts", source: SOURCES.vllm, only: [1], on: "E" },
    does: "changes the shared expert's width in vLLM, or drops the shared expert",
  },
  {
    // where the value is `true`, `match.ts` decides which tensor is the output head
    ...{ key: "tie_word_embeddings", source: SOURCES.remote, only: [false, null, true], written: true },
    does: "makes the token table the head in vLLM and in NVIDIA's code; Transformers 5.12 ties nothing in this family",
  },
  {
    ...{ key: "sliding_window", source: SOURCES.vllm, only: [null], on: "*", written: true },
    does: "limits attention to a window of tokens in vLLM and in NVIDIA's code, but not in Transformers",
  },
  {
    ...{ key: "block_configs", source: SOURCES.vllm, only: [null] },
    does: "gives layers widths of their own",
  },
  {
    ...{ key: "compression_config", source: SOURCES.vllm, only: [null] },
    does: "declares a quantisation to vLLM, as quantization_config does",
  },
  ...COMMON_ONLY_KEYS,
];

const unread = (source: Source, why: string, ...keys: readonly string[]): UnreadKeys => ({
  ...{ why, source: SOURCES[source], keys },
});

export const UNREAD_KEYS: readonly UnreadKeys[] = [
  unread("config", "it must be the length of the pattern and is compared with it", "num_hidden_layers"),
  unread("remote", "no engine has rotary positions for this family", "rope_theta", "rope_scaling"),
  unread(
    "remote",
    "no engine has rotary positions for this family",
    "rope_parameters",
    "partial_rotary_factor",
  ),
  unread("remote", "no engine has positions for this family", "position_embedding_type"),
  unread("vllm", "the longest prompt that an engine accepts", "max_position_embeddings"),
  unread("model", "how the scan is divided, not what it computes", "chunk_size", "mamba_chunk_size"),
  unread("remote", "where the stream is rounded, not the function", "residual_in_fp32"),
  unread("vllm", "the type of a cache", "mamba_ssm_cache_dtype"),
  unread("model", "which kernels run", "use_mamba_kernels", "moe_shared_expert_overlap"),
  unread("model", "the inner width is mamba_num_heads × mamba_head_dim", "expand", "mamba_expand"),
  unread(
    "model",
    "how weights are initialised; some releases of Transformers also clamp with the first key on a CPU, which is a bug",
    ...["time_step_min", "time_step_max", "time_step_floor", "time_step_rank"],
    ...[
      "mamba_dt_min",
      "mamba_dt_max",
      "mamba_dt_init_floor",
      "initializer_range",
      "rescale_prenorm_residual",
    ],
  ),
  unread("model", "training", "attention_dropout", "hidden_dropout", "classifier_dropout"),
  unread(
    "bridge",
    "the weights show which prediction steps have their own weights",
    "mtp_use_repeated_layer",
  ),
  unread("remote", "NeMo's name of num_key_value_heads; no engine reads it in this file", "num_query_groups"),
  unread("model", "how many logits a generation asks for", "num_logits_to_keep"),
  ...COMMON_UNREAD_KEYS,
];

/** Keys for which Transformers 5.12.1 refuses `null`, as measured. It accepts `null` for all other keys. */
export const NULL_REFUSED: readonly string[] = [
  ...[
    "vocab_size",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
  ],
  ...[
    "ssm_state_size",
    "mamba_num_heads",
    "mamba_head_dim",
    "n_groups",
    "conv_kernel",
    "expand",
    "chunk_size",
  ],
  ...[
    "mamba_n_groups",
    "mamba_d_conv",
    "mamba_expand",
    "mamba_chunk_size",
    "mamba_conv_bias",
    "mamba_dt_limit",
  ],
  ...[
    "mamba_dt_min",
    "mamba_dt_max",
    "mamba_dt_init_floor",
    "time_step_min",
    "time_step_max",
    "time_step_limit",
  ],
  ...["time_step_floor", "use_conv_bias", "use_bias", "mlp_bias", "attention_bias", "mamba_proj_bias"],
  ...["mlp_hidden_act", "mamba_hidden_act", "layer_norm_epsilon", "tie_word_embeddings", "layer_types"],
  ...["n_routed_experts", "n_shared_experts", "moe_intermediate_size", "moe_shared_expert_intermediate_size"],
  ...["num_experts_per_tok", "routed_scaling_factor", "n_group", "topk_group", "norm_topk_prob"],
  ...["num_nextn_predict_layers", "mtp_hybrid_override_pattern", "moe_shared_expert_overlap"],
  ...["max_position_embeddings", "attention_dropout", "hidden_dropout", "use_mamba_kernels", "use_cache"],
  ...["mamba_ssm_cache_dtype", "num_logits_to_keep", "initializer_range", "residual_in_fp32"],
  ...["rescale_prenorm_residual", "chunk_size_feed_forward", "is_encoder_decoder"],
];
