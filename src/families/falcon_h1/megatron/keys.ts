/** Keys of a record of `FalconH1ModelProvider` that hold no setting: those with one supported value, and those that nothing reads. */
import type { OnlyKey, UnreadKeys } from "../../parts/config-keys.ts";
import { FIXED_KEYS as GPT_KEYS } from "../../parts/gpt/keys.ts";
import { ATTENTION, CORE, NORM, NOTED_KEYS, OFF } from "../../parts/megatron/fixed-keys.ts";
import { COMMON_UNREAD_KEYS, CONFIG, unread } from "../../parts/megatron/unread-keys.ts";
import { FIELDS, OTHER_KEYS } from "./fields.ts";

const MIXER = `${CORE}ssm/mamba_mixer.py`;
const BLOCK = "falconh1_block.py of Megatron-Bridge";
const LAYER = "falconh1_layer.py of Megatron-Bridge";
const MODEL = "falconh1_model.py of Megatron-Bridge";

/** The bias of a layer's output is added unmultiplied in Megatron, and multiplied in Transformers. */
const OWN_KEYS: readonly OnlyKey[] = [
  { ...{ key: "add_bias_linear", source: LAYER, only: OFF }, does: "adds biases to attention and MLPs" },
  {
    ...{ key: "add_qkv_bias", source: ATTENTION, only: OFF },
    does: "adds biases to queries, keys and values",
  },
  { ...{ key: "qk_layernorm", source: ATTENTION, only: OFF }, does: "normalises queries and keys" },
  {
    ...{ key: "window_size", source: ATTENTION, only: [null, [-1, -1], [-1, 0]] },
    does: "limits attention to a window of tokens",
  },
  { ...{ key: "normalization", source: NORM, only: ["RMSNorm"] }, does: "normalises by another rule" },
  {
    ...{ key: "layernorm_zero_centered_gamma", source: NORM, only: OFF },
    does: "adds 1 to the gain of each norm",
  },
  { ...{ key: "gated_linear_unit", source: LAYER, only: [true] }, does: "removes the gate of the MLPs" },
  {
    ...{ key: "position_embedding_type", source: MODEL, only: ["rope"] },
    does: "removes the rotary positions",
  },
  { ...{ key: "rotary_percent", source: MODEL, only: [1] }, does: "turns a part of each head only" },
  { ...{ key: "norm_before_gate", source: MIXER, only: OFF }, does: "stops Megatron's mixer" },
  { ...{ key: "conv_bias", source: MIXER, only: [true] }, does: "stops Megatron's mixer" },
  { ...{ key: "D_has_hdim", source: MIXER, only: OFF }, does: "gives each channel a D of its own" },
  ...["use_mamba", "use_attention", "use_mlp"].map((key) => ({
    ...{ key, source: LAYER, only: [true] },
    does: "drops a part of each layer",
  })),
  { ...{ key: "falconh1_ratio", source: BLOCK, only: [1] }, does: "gives some layers one mixer only" },
  ...["hybrid_attention_ratio", "hybrid_mlp_ratio"].map((key) => ({
    ...{ key, source: BLOCK, only: [0, null] },
    does: "gives some layers one mixer only",
  })),
  { ...{ key: "num_moe_experts", source: CONFIG, only: [null] }, does: "adds experts" },
];

/** Their rows on experts concern no model of this class. */
export const FIXED_KEYS: readonly OnlyKey[] = [...OWN_KEYS, ...GPT_KEYS.filter(({ on }) => on !== "E")];

export const UNREAD_KEYS: readonly UnreadKeys[] = [
  unread(
    "how weights are initialised",
    MIXER,
    "A_init_dist A_init_range conv_init dt_init dt_init_floor dt_max dt_min dt_scale",
  ),
  unread(
    "only in models of other classes, or where the residual stream is rounded",
    CONFIG,
    `
    falconh1_stack_spec fp32_residual_connection is_hybrid_model linear_cp_layout linear_cp_mode
    mamba_chunk_size moe_ffn_hidden_size moe_grouped_gemm moe_layer_freq moe_router_dtype
    moe_router_enable_expert_bias moe_router_group_topk moe_router_num_groups moe_router_pre_softmax
    moe_router_score_function moe_router_topk moe_router_topk_scaling_factor
    moe_shared_expert_glu_interleave_size moe_shared_expert_intermediate_size mtp_hybrid_override_pattern
    `,
  ),
  ...COMMON_UNREAD_KEYS,
];

/** Every key of the tables. */
export const KNOWN_KEYS: ReadonlySet<string> = new Set([
  ...OTHER_KEYS,
  ...FIELDS.map(({ key }) => key),
  ...[...OWN_KEYS, ...GPT_KEYS, ...NOTED_KEYS].map(({ key }) => key),
  ...UNREAD_KEYS.flatMap(({ keys }) => keys),
]);
