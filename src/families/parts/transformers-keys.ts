/** Keys of config.json that Transformers reads for every model. */
import type { OnlyKey, UnreadKeys } from "./config-keys.ts";

/** Files of Transformers that read keys of every model. */
export const TRANSFORMERS = {
  base: "transformers/configuration_utils.py",
  load: "transformers/modeling_utils.py",
  masks: "transformers/masking_utils.py",
  cache: "transformers/cache_utils.py",
  generation: "transformers/generation/configuration_utils.py",
  rope: "transformers/modeling_rope_utils.py",
} as const;

/** Transformers loads the file that this key names, whatever other files exist. */
export const WEIGHTS_KEY = "transformers_weights";

/** Keys with one supported value. */
export const COMMON_ONLY_KEYS: readonly OnlyKey[] = [
  {
    ...{ key: "is_causal", source: TRANSFORMERS.masks, only: [true] },
    does: "lets attention use later tokens in Transformers 5",
  },
  {
    ...{ key: "num_kv_shared_layers", source: TRANSFORMERS.cache, only: [null, 0] },
    does: "removes the KV cache of the last layers in Transformers 5",
  },
  {
    ...{ key: "fusion_config", source: TRANSFORMERS.load, only: [null] },
    does: "replaces modules while Transformers 5 loads the model",
  },
  {
    ...{ key: "is_encoder_decoder", source: TRANSFORMERS.base, only: [false, null] },
    does: "makes engines look for an encoder",
  },
  ...(["text_config", "decoder", "generator", "text_encoder"] as const).map(
    (key): OnlyKey => ({
      ...{ key, source: TRANSFORMERS.base, only: [null] },
      does: "makes Transformers use another config for the language model",
    }),
  ),
];

const unread = (source: keyof typeof TRANSFORMERS, why: string, ...keys: readonly string[]): UnreadKeys => ({
  ...{ why, source: TRANSFORMERS[source], keys },
});

/** Keys on which no forward pass depends. */
export const COMMON_UNREAD_KEYS: readonly UnreadKeys[] = [
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
  unread("load", "training", "gradient_checkpointing", "mtp_loss_scaling_factor", "keep_mtp_spec_in_bf16"),
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
