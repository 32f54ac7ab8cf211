/** Rows of the tables of config keys that models of blocks share. */
import type { SettingKey } from "../config-json.ts";
import type { OnlyKey, UnreadKeys } from "../config-keys.ts";
import { count, type KeyValue } from "../key-values.ts";
import { COMMON_ONLY_KEYS, COMMON_UNREAD_KEYS } from "../transformers-keys.ts";

const configClass = (type: string) => `transformers/models/${type}/configuration_${type}.py`;
export const modelClass = (type: string) => `transformers/models/${type}/modeling_${type}.py`;

/** Makes rows of the settings of a model type. */
export const settingRow =
  (type: string) =>
  (setting: string, key: string, value: KeyValue, more: Partial<SettingKey> = {}): SettingKey => ({
    ...{ setting, key, source: configClass(type), value },
    ...more,
  });

/** Widths and numbers of heads. */
export function widthRows(type: string): readonly SettingKey[] {
  const row = settingRow(type);
  return [
    row("layers", "num_hidden_layers", count),
    row("hidden", "hidden_size", count),
    row("vocab", "vocab_size", count),
    row("ffn", "intermediate_size", count),
    row("heads", "num_attention_heads", count),
    row("kvHeads", "num_key_value_heads", count, { nullable: true }),
    row("headDim", "head_dim", count, { nullable: true }),
  ];
}

/** Keys with one value that engines read in some model types, and that change the function in all. */
const ELSEWHERE = {
  attention_bias: [[false, null], "adds biases to attention in some engines"],
  mlp_bias: [[false, null], "adds biases to MLPs in some engines"],
  sliding_window: [[null], "limits attention to a window in some engines"],
} as const;

/**
 * Keys with one supported value.
 *
 * @param activation names of the activation of MLPs
 * @param elsewhere  keys that the class of this model type does not read, although other classes do
 */
export function onlyRows(
  type: string,
  activation: readonly string[],
  elsewhere: readonly (keyof typeof ELSEWHERE)[],
): readonly OnlyKey[] {
  const source = modelClass(type);
  return [
    {
      ...{ key: "hidden_act", source, only: activation, absent: activation[0] },
      does: "changes the activation of MLPs",
    },
    {
      ...{ key: "pretraining_tp", source, only: [1] },
      does: "cuts the products of older releases into parts",
    },
    ...elsewhere.map((key) => ({ key, source, only: ELSEWHERE[key][0], does: ELSEWHERE[key][1] })),
    { ...{ key: "no_rope_layers", source, only: [null] }, does: "removes the positions of some layers" },
    { ...{ key: "block_configs", source, only: [null] }, does: "gives layers widths of their own" },
    ...COMMON_ONLY_KEYS,
  ];
}

/** Keys on which nothing depends. */
export function unreadRows(type: string): readonly UnreadKeys[] {
  const source = configClass(type);
  return [
    { why: "the longest prompt that an engine accepts", source, keys: ["max_position_embeddings"] },
    { why: "training", source, keys: ["attention_dropout", "initializer_range"] },
    ...COMMON_UNREAD_KEYS,
  ];
}
