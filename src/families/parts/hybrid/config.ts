/** The keys of config.json that models with attention, Mamba-2 and gated MLPs share. */
import type { Config } from "../../structure.ts";
import { type ConfigJson, invalidKeyError, type SettingKey } from "../config-json.ts";
import { readHeads } from "../hf/config.ts";
import { onlyRows, settingRow, unreadRows, widthRows } from "../hf/keys.ts";
import { flag, positive } from "../key-values.ts";
import { expandedWidth, mambaOnlyRows, mambaRows, mambaUnreadRows, readMamba } from "../mamba/config.ts";
import { readRotary } from "../rotary.ts";

/** @param eps default of the model's class */
export function hybridRows(type: string, eps: number): readonly SettingKey[] {
  const row = settingRow(type);
  return [
    ...widthRows(type),
    row("eps", "rms_norm_eps", positive, { absent: eps }),
    row("tied", "tie_word_embeddings", flag, { absent: false }),
    row("attentionBias", "attention_bias", flag, { absent: false }),
    ...mambaRows(type),
  ];
}

export const hybridOnlyRows = (type: string, elsewhere: Parameters<typeof onlyRows>[2]) => [
  ...onlyRows(type, ["silu", "swish"], elsewhere),
  ...mambaOnlyRows(type),
];

export const hybridUnreadRows = (type: string) => [...unreadRows(type), ...mambaUnreadRows(type)];

/**
 * Rotary positions of families whose class turns the same share of each head in every model, whatever the config says.
 *
 * @param usual.partial that share
 * @throws CONFIG_INVALID where a key asks for another share: engines would not obey it alike
 */
export function readShareOfHead(config: Config, headDim: number, usual: Parameters<typeof readRotary>[2]) {
  const settings = readRotary(config, headDim, usual);
  refuseOtherShare("partial_rotary_factor", settings.rotary, headDim, usual.partial);
  return settings;
}

/** @param rotated elements of a head that the key turns */
export function refuseOtherShare(key: string, rotated: number, headDim: number, share: number): void {
  if (rotated === headDim * share) return;
  invalidKeyError(
    `${key} turns ${rotated} of the ${headDim} elements of a head; the config class of Transformers, which vLLM uses too, fixes ${headDim * share}`,
  );
}

/**
 * The settings of these keys.
 *
 * @param absent.kvHeads heads of keys and values where the config names none; null there means all heads
 * @param inner          the inner width of the Mamba mixer
 * @throws CONFIG_INVALID, naming the key
 */
export function readHybrid(
  config: Config,
  reader: ConfigJson,
  absent: { readonly kvHeads?: number },
  inner = expandedWidth(config, reader),
) {
  const need = (name: string) => reader.need(config, name);
  const isSet = (name: string) => reader.read(config, name) === true;
  const { kvHeads = need("heads") } = config.num_key_value_heads === null ? {} : absent;
  return {
    hidden: need("hidden"),
    vocab: need("vocab"),
    eps: need("eps"),
    ...readHeads(config, reader, { kvHeads }),
    attentionBias: isSet("attentionBias"),
    tied: isSet("tied"),
    ...readMamba(config, reader, inner),
  };
}
