/**
 * Keys of a Megatron record that engines use and that hold no setting of this family: only one value is supported. fields.ts
 * has the keys that are also written, unread-keys.ts those on which nothing depends.
 */
import type { OnlyKey } from "../../parts/config-keys.ts";
import { ATTENTION, COMMON_FIXED_KEYS, NORM, OFF } from "../../parts/megatron/fixed-keys.ts";

export const FIXED_KEYS: readonly OnlyKey[] = [
  {
    ...{ key: "window_size", source: ATTENTION, on: "*" },
    only: [null, [-1, -1], [-1, 0]],
    does: "limits attention to a window of tokens",
  },
  {
    ...{ key: "add_qkv_bias", source: ATTENTION, only: OFF, on: "*" },
    does: "adds biases to queries, keys and values",
  },
  {
    ...{ key: "qk_layernorm", source: ATTENTION, only: OFF, on: "*" },
    does: "normalises queries and keys",
  },
  {
    ...{ key: "use_rotary_position_embeddings", source: "megatron/training/arguments.py", only: OFF },
    does: "sets position_embedding_type to rope",
  },
  {
    ...{ key: "layernorm_zero_centered_gamma", source: NORM, only: OFF },
    does: "adds 1 to the gain of each norm",
  },
  {
    ...{ key: "apply_layernorm_1p", source: NORM, only: OFF },
    does: "adds 1 to the gain of each norm",
  },
  ...COMMON_FIXED_KEYS,
];
