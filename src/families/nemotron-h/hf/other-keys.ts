/**
 * Keys of config.json that hold no setting: those that engines use, with the values that are computed here, and those on
 * which the forward pass does not depend. Together with setting-keys.ts these are all keys that Transformers, NVIDIA's own
 * code, vLLM and Megatron-Bridge read for this family. A key in no table is unknown, and `check` names it.
 */
import type { OnlyKey, UnreadKeys } from "../config-keys.ts";
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
    ...{ key: "is_causal", source: SOURCES.masks, only: [true] },
    does: "lets attention use later tokens in Transformers 5",
  },
  {
    ...{ key: "num_kv_shared_layers", source: SOURCES.cache, only: [null, 0] },
    does: "removes the KV cache of the last layers in Transformers 5",
  },
  {
    ...{ key: "fusion_config", source: SOURCES.load, only: [null] },
    does: "replaces modules while Transformers 5 loads the model",
  },
  {
    ...{ key: "is_encoder_decoder", source: SOURCES.base, only: [false, null] },
    does: "makes engines look for an encoder",
  },
  ...(["text_config", "decoder", "generator", "text_encoder"] as const).map(
    (key): OnlyKey => ({
      ...{ key, source: SOURCES.base, only: [null] },
      does: "makes Transformers use another config for the language model",
    }),
  ),
  {
    ...{ key: "block_configs", source: SOURCES.vllm, only: [null] },
    does: "gives layers widths of their own",
  },
  {
    ...{ key: "compression_config", source: SOURCES.vllm, only: [null] },
    does: "declares a quantisation to vLLM, as quantization_config does",
  },
];

/** Transformers loads the file that this key names, whatever other files exist. */
export const WEIGHTS_KEY = "transformers_weights";

const unread = (source: Source, why: string, ...keys: readonly string[]): UnreadKeys => ({
  ...{ why, source: SOURCES[source], keys },
});

export const UNREAD_KEYS: readonly UnreadKeys[] = [
  unread("config", "it must be the length of the pattern and is compared with it", "num_hidden_layers"),
  unread("load", "it must name the weights that are read; otherwise the checkpoint is refused", WEIGHTS_KEY),
  unread("load", "quantised weights are read by their scales; `check` compares both", "quantization_config"),
  unread("base", "the type that engines compute in, not the function", "dtype", "torch_dtype"),
  unread(
    "base",
    "which code loads the model",
    "architectures",
    "auto_map",
    "model_type",
    "transformers_version",
  ),
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
  unread("base", "which kernels run", "attn_implementation", "_attn_implementation"),
  unread("base", "which kernels run", "_attn_implementation_internal", "_attn_implementation_autoset"),
  unread("base", "which kernels run", "experts_implementation", "_experts_implementation"),
  unread(
    "base",
    "which kernels run",
    "_experts_implementation_internal",
    "chunk_size_feed_forward",
    "compile_config",
  ),
  unread("cache", "Transformers reads it only in models without a list of layers", "attention_chunk_size"),
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
  unread("load", "training", "gradient_checkpointing", "mtp_loss_scaling_factor", "keep_mtp_spec_in_bf16"),
  unread(
    "bridge",
    "the weights show which prediction steps have their own weights",
    "mtp_use_repeated_layer",
  ),
  unread("remote", "NeMo's name of num_key_value_heads; no engine reads it in this file", "num_query_groups"),
  unread("model", "how many logits a generation asks for", "num_logits_to_keep"),
  unread(
    "base",
    "tokens that begin, end and pad generated text",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
  ),
  unread("base", "tokens that begin, end and pad generated text", "sep_token_id", "decoder_start_token_id"),
  unread(
    "base",
    "what a call returns",
    "output_hidden_states",
    "output_attentions",
    "return_dict",
    "use_return_dict",
  ),
  unread(
    "base",
    "heads of classifiers",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "finetuning_task",
  ),
  unread("base", "where the config came from", "_name_or_path", "name_or_path", "_commit_hash"),
  unread(
    "base",
    "no code of this family reads it",
    "is_decoder",
    "add_cross_attention",
    "cross_attention_hidden_size",
  ),
  unread("base", "no code of this family reads it", "tie_encoder_decoder", "pruned_heads", "torchscript"),
  unread("base", "no code of this family reads it", "use_bfloat16", "tokenizer_class", "prefix"),
  unread("base", "no code of this family reads it", "task_specific_params", "tf_legacy_loss"),
  unread(
    "generation",
    "how text is generated; Transformers drops it from a model's config",
    ...["assistant_confidence_threshold", "assistant_lookbehind", "bad_words_ids", "begin_suppress_tokens"],
    ...["diversity_penalty", "do_sample", "early_stopping", "encoder_no_repeat_ngram_size"],
    ...["encoder_repetition_penalty", "epsilon_cutoff", "eta_cutoff", "exponential_decay_length_penalty"],
    ...["forced_bos_token_id", "forced_eos_token_id", "length_penalty", "max_length", "min_length"],
    ...["no_repeat_ngram_size", "num_assistant_tokens", "num_assistant_tokens_schedule", "num_beam_groups"],
    ...["num_beams", "num_return_sequences", "output_scores", "remove_invalid_values", "repetition_penalty"],
    ...["return_dict_in_generate", "suppress_tokens", "target_lookbehind", "temperature", "top_k", "top_p"],
    ...["typical_p", "use_cache"],
  ),
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
