/** The multipliers of a Falcon-H1 model: settings, and the keys that config.json and Megatron-Bridge's records share. */
import { type KeyValue, valueThat } from "../parts/key-values.ts";

/** Multipliers of one number. */
export const MULTIPLIERS = {
  embeddingMultiplier: "embedding_multiplier",
  lmHeadMultiplier: "lm_head_multiplier",
  attentionInMultiplier: "attention_in_multiplier",
  attentionOutMultiplier: "attention_out_multiplier",
  keyMultiplier: "key_multiplier",
  ssmInMultiplier: "ssm_in_multiplier",
  ssmOutMultiplier: "ssm_out_multiplier",
} as const;

/** Lists of multipliers, and their lengths. */
export const MULTIPLIER_LISTS = [
  { setting: "ssmMultipliers", key: "ssm_multipliers", length: 5 },
  { setting: "mlpMultipliers", key: "mlp_multipliers", length: 2 },
] as const;

/** The settings of all multipliers. */
export const MULTIPLIER_SETTINGS = [
  ...Object.keys(MULTIPLIERS),
  ...MULTIPLIER_LISTS.map(({ setting }) => setting),
];

export const listOf = (length: number): KeyValue =>
  valueThat(
    `a list of ${length} numbers`,
    (value) => Array.isArray(value) && value.length === length && value.every(Number.isFinite),
  );

/** What an absent list means. */
export const ones = (length: number): readonly number[] => Array.from({ length }, () => 1);
