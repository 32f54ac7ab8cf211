/** Reads config.json into settings, and writes it for a model from another dialect, as the published releases spell it. */
import type { ConfigInput } from "../../dialect.ts";
import { ConfigJson } from "../../parts/config-json.ts";
import { COMMON_KEYS, configOf, readHeads } from "../../parts/hf/config.ts";
import { modelClass, onlyRows, settingRow, unreadRows, widthRows } from "../../parts/hf/keys.ts";
import { flag, positive } from "../../parts/key-values.ts";
import { refuseExcess } from "../../parts/limits.ts";
import { ROTARY_KEYS, readRotary } from "../../parts/rotary.ts";
import type { Config } from "../../structure.ts";
import type { NemotronSettings } from "../settings.ts";

const TYPE = "nemotron";
const ARCHITECTURES = ["NemotronForCausalLM"];
const row = settingRow(TYPE);

export const reader = new ConfigJson({
  architectures: ARCHITECTURES,
  settings: [
    ...widthRows(TYPE),
    row("eps", "norm_eps", positive, { absent: 1e-5 }),
    row("attentionBias", "attention_bias", flag, { absent: false }),
    row("mlpBias", "mlp_bias", flag, { absent: false }),
  ],
  only: [
    ...onlyRows(TYPE, ["relu2"], ["sliding_window"]),
    {
      ...{ key: "tie_word_embeddings", source: modelClass(TYPE), only: [false, null] },
      does: "makes the token table the head",
    },
  ],
  unread: unreadRows(TYPE),
  nullRefused: [],
  others: ROTARY_KEYS,
});

/** Defaults of Transformers. */
const ROPE_DEFAULTS = { theta: 10_000, partial: 0.5 };

/** @throws CONFIG_INVALID, UNSUPPORTED; each names the key */
export function readSettings(config: Config): NemotronSettings {
  reader.refuseOtherValues(config);
  const need = (name: string) => reader.need(config, name);
  const heads = readHeads(config, reader);
  const blocks = need("layers");
  refuseExcess(2 * blocks, 0, { file: "config.json" });
  return {
    pattern: "*-".repeat(blocks),
    hidden: need("hidden"),
    vocab: need("vocab"),
    eps: need("eps"),
    ffn: need("ffn"),
    attentionBias: reader.read(config, "attentionBias") === true,
    mlpBias: reader.read(config, "mlpBias") === true,
    ...heads,
    ...readRotary(config, heads.headDim, ROPE_DEFAULTS),
  };
}

/** Keys of settings that are written as they are. */
const KEYS: Readonly<Record<string, string>> = {
  ...COMMON_KEYS,
  ...{ eps: "norm_eps", attentionBias: "attention_bias", mlpBias: "mlp_bias" },
};

export const keyOf = (setting: string): string | undefined => KEYS[setting];

export function writeConfig(model: Pick<ConfigInput, "settings" | "passthrough" | "dtype">) {
  const { rotary, headDim } = model.settings;
  const config = configOf(model, KEYS, {
    ...{ architectures: ARCHITECTURES, model_type: TYPE, hidden_act: "relu2", tie_word_embeddings: false },
    partial_rotary_factor: Number(rotary) / Number(headDim),
  });
  return { config, notes: [] };
}
