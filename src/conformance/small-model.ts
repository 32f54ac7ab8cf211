/** Synthetic models of a few kilobytes, in any layer pattern. */
import { synthesize } from "./synthesize.ts";

/** Widths that are all unlike, so that no two shapes agree by chance. */
const WIDTHS = {
  hidden_size: 64,
  vocab_size: 80,
  intermediate_size: 96,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 24,
  mamba_num_heads: 4,
  mamba_head_dim: 16,
  ssm_state_size: 16,
  n_groups: 2,
  n_routed_experts: 3,
  num_experts_per_tok: 2,
  moe_intermediate_size: 40,
  moe_shared_expert_intermediate_size: 56,
} as const;

/** Writes a Hugging Face folder. `config` wins over the usual widths. */
export async function smallModel(
  folder: string,
  pattern: string,
  config: Readonly<Record<string, unknown>> = {},
  maxShardBytes = 1e9,
): Promise<string> {
  const whole = { ...WIDTHS, hybrid_override_pattern: pattern, ...config };
  await synthesize(folder, { config: whole, seed: 1, maxShardBytes });
  return folder;
}
