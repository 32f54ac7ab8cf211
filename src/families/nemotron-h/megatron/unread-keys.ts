/** Keys of a Megatron record on which the forward pass of this family does not depend, and why. */

import type { UnreadKeys } from "../../parts/config-keys.ts";
import { COMMON_UNREAD_KEYS, CONFIG, unread } from "../../parts/megatron/unread-keys.ts";

export const UNREAD_KEYS: readonly UnreadKeys[] = [
  unread(
    "only with rotary positions, which position_embedding_type excludes",
    CONFIG,
    `
    add_position_embedding mrope_section mscale mscale_all_dim no_rope_freq relative_attention_max_distance
    relative_attention_num_buckets rope_scaling_factor rope_type rotary_base rotary_interleaved rotary_percent
    rotary_percentage rotary_scaling_factor rotary_seq_len_interpolation_factor seq_len_interpolation_factor
    use_rope_scaling yarn_beta_fast yarn_beta_slow yarn_correction_range_round_to_int
    yarn_original_max_position_embeddings
    `,
  ),
  unread(
    "only with a gated activation, which gated_linear_unit excludes",
    CONFIG,
    `
    glu_linear_offset moe_mlp_glu_interleave_size moe_shared_expert_glu_interleave_size
    `,
  ),
  unread(
    "only with window_size",
    CONFIG,
    `
    window_attn_skip_freq
    `,
  ),
  unread(
    "the pattern gives the kinds of layers",
    "megatron/core/models/hybrid/hybrid_layer_allocation.py",
    `
    hybrid_attention_ratio hybrid_mlp_ratio moe_layer_freq
    `,
  ),
  unread(
    "only with softmax scores, which moe_router_score_function excludes",
    CONFIG,
    `
    moe_router_pre_softmax
    `,
  ),
  ...COMMON_UNREAD_KEYS,
];
