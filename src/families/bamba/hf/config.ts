/** Reads config.json into settings. */
import { ConfigJson, invalidKeyError } from "../../parts/config-json.ts";
import { modelClass, settingRow } from "../../parts/hf/keys.ts";
import {
  hybridOnlyRows,
  hybridRows,
  hybridUnreadRows,
  readHybrid,
  readShareOfHead,
  refuseOtherShare,
} from "../../parts/hybrid/config.ts";
import { count, flag, valueThat } from "../../parts/key-values.ts";
import { refuseExcess } from "../../parts/limits.ts";
import { ROTARY_KEYS } from "../../parts/rotary.ts";
import type { Config, Settings } from "../../structure.ts";

const TYPE = "bamba";
const row = settingRow(TYPE);

const numbers = valueThat(
  "a list of whole numbers of at least 0",
  (value) => Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0),
);

export const reader = new ConfigJson({
  architectures: ["BambaForCausalLM"],
  settings: [
    ...hybridRows(TYPE, 1e-5),
    row("mlpBias", "mlp_bias", flag, { absent: false }),
    row("attentionLayers", "attn_layer_indices", numbers, { absent: [], nullable: true }),
    row("rotaryWidth", "attn_rotary_emb", count, { nullable: true }),
  ],
  only: hybridOnlyRows(TYPE, ["sliding_window"]),
  unread: [
    ...hybridUnreadRows(TYPE),
    { why: "how many logits a generation asks for", source: modelClass(TYPE), keys: ["num_logits_to_keep"] },
    { why: "training", source: modelClass(TYPE), keys: ["z_loss_coefficient"] },
  ],
  nullRefused: [],
  others: ROTARY_KEYS,
});

/** Transformers' class gives every Bamba model this share of each head, whatever the config says. */
const ROTARY = { theta: 10_000, partial: 0.5 };

/** Keys and values have this number of heads where the config names none. */
const KV_HEADS = 8;

/** @throws CONFIG_INVALID, UNSUPPORTED; each names the key */
export function readSettings(config: Config): Settings {
  reader.refuseOtherValues(config);
  const blocks = reader.need(config, "layers");
  refuseExcess(2 * blocks, 0, { file: "config.json" });
  const shared = readHybrid(config, reader, { kvHeads: KV_HEADS });
  const rotated = reader.read(config, "rotaryWidth");
  if (rotated !== undefined)
    refuseOtherShare("attn_rotary_emb", Number(rotated), shared.headDim, ROTARY.partial);
  return {
    pattern: patternOf(blocks, reader.read(config, "attentionLayers") as readonly number[]), // the table parses it to this type
    ...shared,
    ffn: reader.need(config, "ffn"),
    mlpBias: reader.read(config, "mlpBias") === true,
    ...readShareOfHead(config, shared.headDim, ROTARY),
  };
}

function patternOf(blocks: number, attention: readonly number[]): string {
  const outside = attention.find((index) => index >= blocks);
  if (outside !== undefined)
    invalidKeyError(`attn_layer_indices has ${outside}, but num_hidden_layers is ${blocks}`);
  return Array.from({ length: blocks }, (_, i) => (attention.includes(i) ? "*-" : "M-")).join("");
}
