/** Reads config.json into settings. */
import { ConfigJson } from "../../parts/config-json.ts";
import { modelClass, settingRow } from "../../parts/hf/keys.ts";
import {
  hybridOnlyRows,
  hybridRows,
  hybridUnreadRows,
  readHybrid,
  readShareOfHead,
} from "../../parts/hybrid/config.ts";
import { count, finite, flag } from "../../parts/key-values.ts";
import { refuseExcess } from "../../parts/limits.ts";
import { expandedWidth } from "../../parts/mamba/config.ts";
import { ROTARY_KEYS } from "../../parts/rotary.ts";
import type { Config, Settings } from "../../structure.ts";
import { listOf, MULTIPLIER_LISTS, MULTIPLIER_SETTINGS, MULTIPLIERS, ones } from "../multipliers.ts";

const TYPE = "falcon_h1";
const row = settingRow(TYPE);

export const reader = new ConfigJson({
  architectures: ["FalconH1ForCausalLM"],
  settings: [
    ...hybridRows(TYPE, 1e-5),
    row("mlpBias", "mlp_bias", flag, { absent: false }),
    row("projectorsBias", "projectors_bias", flag, { absent: false }),
    row("inner", "mamba_d_ssm", count, { absent: 1024, nullable: true }),
    row("mambaRmsNorm", "mamba_rms_norm", flag, { absent: false }),
    row("normBeforeGate", "mamba_norm_before_gate", flag, { absent: true }),
    ...Object.entries(MULTIPLIERS).map(([setting, key]) => row(setting, key, finite, { absent: 1 })),
    // Transformers reads null as ones
    ...MULTIPLIER_LISTS.map(({ setting, key, length }) =>
      row(setting, key, listOf(length), { absent: ones(length), nullable: true }),
    ),
  ],
  only: [
    ...hybridOnlyRows(TYPE, ["sliding_window"]),
    {
      ...{ key: "mamba_use_mlp", source: "configuration of the published releases", only: [true, null] },
      does: "drops the MLPs",
    },
    {
      ...{ key: "attn_layer_indices", source: "configuration of the published releases", only: [null] },
      does: "gives attention to some layers only",
    },
  ],
  unread: [
    ...hybridUnreadRows(TYPE),
    { why: "how many logits a generation asks for", source: modelClass(TYPE), keys: ["num_logits_to_keep"] },
    { why: "the width is intermediate_size", source: modelClass(TYPE), keys: ["mlp_expansion_factor"] },
  ],
  nullRefused: [],
  others: ROTARY_KEYS,
});

/** Defaults of Transformers. */
const ROTARY = { theta: 10_000, partial: 1 };
const KV_HEADS = 8;

/** @throws CONFIG_INVALID, UNSUPPORTED; each names the key */
export function readSettings(config: Config): Settings {
  reader.refuseOtherValues(config);
  const isSet = (name: string) => reader.read(config, name) === true;
  const blocks = reader.need(config, "layers");
  refuseExcess(2 * blocks, 0, { file: "config.json" });
  const inner =
    config.mamba_d_ssm === null
      ? expandedWidth(config, reader)
      : { width: reader.need(config, "inner"), says: "mamba_d_ssm" };
  const shared = readHybrid(config, reader, { kvHeads: KV_HEADS }, inner);
  return {
    pattern: "H-".repeat(blocks),
    ...shared,
    ffn: reader.need(config, "ffn"),
    mlpBias: isSet("mlpBias"),
    projectorsBias: isSet("projectorsBias"),
    mambaRmsNorm: isSet("mambaRmsNorm"),
    ...(isSet("mambaRmsNorm") && { normBeforeGate: isSet("normBeforeGate") }),
    // the tables parse them to numbers and lists of numbers
    ...(Object.fromEntries(MULTIPLIER_SETTINGS.map((name) => [name, reader.read(config, name)])) as Settings),
    ...readShareOfHead(config, shared.headDim, ROTARY),
  };
}
