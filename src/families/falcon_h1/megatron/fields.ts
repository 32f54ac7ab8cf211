/**
 * Fields of Megatron-Bridge's `FalconH1ModelProvider`: those that hold a setting as it stands, and what else a record says.
 *
 * @see megatron/bridge/models/falcon_h1 of Megatron-Bridge
 */
import { count, finite, flag, type KeyValue, positive } from "../../parts/key-values.ts";
import { listOf, MULTIPLIER_LISTS, MULTIPLIERS, ones } from "../multipliers.ts";

const CLASS = "FalconH1ModelProvider";
export const TARGET = `megatron.bridge.models.falcon_h1.falconh1_provider.${CLASS}`;

/** Whether a dotted name is that of the class, in whatever module. */
export const isProvider = (target: unknown): boolean =>
  typeof target === "string" && (target === CLASS || target.endsWith(`.${CLASS}`));

interface Field {
  readonly setting: string;
  readonly key: string;
  readonly value: KeyValue;
  /** default of the class; if there is none, the record must have the key */
  readonly absent?: unknown;
}

/** Fields that are read and written as they are. */
export const FIELDS: readonly Field[] = [
  { setting: "hidden", key: "hidden_size", value: count },
  { setting: "ffn", key: "ffn_hidden_size", value: count },
  { setting: "heads", key: "num_attention_heads", value: count },
  { setting: "eps", key: "layernorm_epsilon", value: positive, absent: 1e-5 },
  { setting: "tied", key: "share_embeddings_and_output_weights", value: flag, absent: false },
  { setting: "mambaHeadDim", key: "mamba_head_dim", value: count, absent: 64 },
  { setting: "groups", key: "mamba_num_groups", value: count, absent: 1 },
  { setting: "state", key: "mamba_state_dim", value: count, absent: 128 },
  { setting: "convKernel", key: "d_conv", value: count, absent: 4 },
  { setting: "mambaRmsNorm", key: "rmsnorm", value: flag, absent: true },
  ...Object.entries(MULTIPLIERS).map(([setting, key]) => ({ setting, key, value: finite, absent: 1 })),
  ...MULTIPLIER_LISTS.map(({ setting, key, length }) => ({
    ...{ setting, key, value: listOf(length), absent: ones(length) },
  })),
];

/** Defaults of the class for fields that other fields decide, or that mean several things. */
export const DEFAULTS = { expand: 2, rotaryBase: 1e11 } as const;

/** Fields that read.ts reads, beside FIELDS, and those of parallelism. */
export const OTHER_KEYS: readonly string[] = [
  ...["_target_", "num_layers", "num_query_groups", "kv_channels", "mamba_num_heads", "expand"],
  ...["vocab_size", "seq_length", "chunk_size", "rotary_base", "seq_len_interpolation_factor"],
  ...["activation_func", "hybrid_override_pattern", "make_vocab_size_divisible_by", "should_pad_vocab"],
  ...["bf16", "tensor_model_parallel_size", "pipeline_model_parallel_size"],
  ...["expert_model_parallel_size", "expert_tensor_parallel_size"],
];
