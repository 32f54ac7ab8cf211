/** The types in which llama.cpp expects the values of keys, by the name after the architecture. */
import { IsologitError } from "../../src/core/errors.ts";
import type { WrittenKey } from "../codec/gguf/encode.ts";

const TYPES = {
  u32: [
    ...["block_count", "context_length", "embedding_length", "vocab_size", "rope.dimension_count"],
    ...["attention.head_count", "attention.key_length", "attention.value_length", "attention.sliding_window"],
    ...["ssm.conv_kernel", "ssm.state_size", "ssm.group_count", "ssm.inner_size", "ssm.time_step_rank"],
    ...["expert_count", "expert_used_count", "expert_group_count", "expert_group_used_count"],
    ...["expert_feed_forward_length", "expert_shared_feed_forward_length", "expert_shared_count"],
    ...["moe_latent_size", "nextn_predict_layers", "rope.scaling.original_context_length"],
  ],
  f32: [
    ...["attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon", "expert_weights_scale"],
    ...["rope.freq_base", "rope.scaling.factor", "attention.scale", "embedding_scale", "residual_scale"],
    ...["logit_scale", "rope.scaling.attn_factor", "rope.scaling.yarn_beta_fast"],
    "rope.scaling.yarn_beta_slow",
  ],
  // keys of our own
  f64: ["rope.factor", "rope.low_freq_factor", "rope.high_freq_factor", "rope.original_context_length"],
  bool: ["rope.scaling.finetuned", "expert_weights_norm"],
  string: ["rope.scaling.type"],
} as const satisfies Partial<Record<WrittenKey["type"], readonly string[]>>;

/** These are a number, or a list with a number for each block. */
const PER_BLOCK = ["feed_forward_length", "attention.head_count_kv"];

/** The keys of a config record, with their types. */
export function typedKeys(config: Readonly<Record<string, unknown>>): readonly WrittenKey[] {
  return Object.entries(config).map(([key, value]) => ({
    key,
    type: typeOf(key, value),
    value: value as never,
  })); // each type above is that of its values
}

/** Begin keys of our own: exact numbers of keys that llama.cpp reads as F32, and multipliers that it has no keys for. */
const EXACT = ["isologit.exact.", "isologit.multipliers."];

function typeOf(key: string, value: unknown): WrittenKey["type"] {
  if (EXACT.some((start) => key.startsWith(start))) return "f64";
  const name = key.slice(key.indexOf(".") + 1);
  const found = Object.entries(TYPES).find(([, names]) => (names as readonly string[]).includes(name));
  if (found !== undefined) return found[0] as keyof typeof TYPES; // a key of the table
  if (PER_BLOCK.includes(name)) return Array.isArray(value) ? "i32[]" : "u32";
  if (Array.isArray(value) && value.every((item) => typeof item === "number")) return "f32[]";
  if (typeof value === "string") return "string";
  if (typeof value === "boolean") return "bool";
  throw new IsologitError("INTERNAL", `the type of the key ${key} is not known`);
}
