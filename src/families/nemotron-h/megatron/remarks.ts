/** Findings about keys of a Megatron record that are not settings: unknown keys, and keys of precision. */
import type { KeyRemark } from "../../dialect.ts";
import { NOTED_KEYS, recordRemarks } from "../../parts/megatron/fixed-keys.ts";
import type { Config } from "../../structure.ts";
import { FIELDS, namesOf } from "./fields.ts";
import { FIXED_KEYS } from "./keys.ts";
import { UNREAD_KEYS } from "./unread-keys.ts";

/** Keys of the layers and of parallelism, which other code reads. */
export const STRUCTURE_KEYS: readonly string[] = [
  ...["num_layers", "hybrid_layer_pattern", "hybrid_override_pattern", "mtp_hybrid_override_pattern"],
  ...["mtp_num_layers", "tensor_model_parallel_size", "pipeline_model_parallel_size"],
  ...["expert_model_parallel_size", "expert_tensor_parallel_size", "make_vocab_size_divisible_by"],
  ...["padded_vocab_size", "should_pad_vocab"],
];

/** Every key of the tables. */
export const KNOWN_KEYS: ReadonlySet<string> = new Set([
  ...STRUCTURE_KEYS,
  ...FIELDS.flatMap(namesOf),
  ...[...FIXED_KEYS, ...NOTED_KEYS].map(({ key }) => key),
  ...UNREAD_KEYS.flatMap(({ keys }) => keys),
]);

export const remarksOn = (config: Config): readonly KeyRemark[] => recordRemarks(config, KNOWN_KEYS);
