/** Reads config.json into settings. */
import { ConfigJson, invalidKeyError } from "../../parts/config-json.ts";
import { modelClass, settingRow } from "../../parts/hf/keys.ts";
import {
  hybridOnlyRows,
  hybridRows,
  hybridUnreadRows,
  readHybrid,
  readShareOfHead,
} from "../../parts/hybrid/config.ts";
import { count, finite, only, positive, valueThat, whole } from "../../parts/key-values.ts";
import { refuseExcess } from "../../parts/limits.ts";
import { ROTARY_KEYS } from "../../parts/rotary.ts";
import type { Config, Settings } from "../../structure.ts";

const TYPE = "granitemoehybrid";
const row = settingRow(TYPE);

const kinds = valueThat(
  "a list of mamba, attention",
  (value) => Array.isArray(value) && value.every((kind) => kind === "mamba" || kind === "attention"),
);

/** Multipliers, whose defaults are all 1: that of attention replaces 1 / √head_dim. */
const MULTIPLIERS = [
  "embeddingMultiplier",
  "attentionMultiplier",
  "residualMultiplier",
  "logitsScaling",
] as const;

export const reader = new ConfigJson({
  architectures: ["GraniteMoeHybridForCausalLM"],
  settings: [
    ...hybridRows(TYPE, 1e-6).filter(({ setting }) => setting !== "ffn"),
    row("ffn", "shared_intermediate_size", count, { absent: 1024 }),
    row("moeFfn", "intermediate_size", count),
    row("experts", "num_local_experts", whole, { absent: 8 }),
    row("topK", "num_experts_per_tok", count, { absent: 2 }),
    {
      ...row("kinds", "layer_types", kinds, { nullable: true }),
      others: [{ key: "layers_block_type", source: modelClass(TYPE) }],
    },
    row("positions", "position_embedding_type", only("nope", "rope"), { nullable: true, absent: "nope" }),
    row("embeddingMultiplier", "embedding_multiplier", finite, { absent: 1 }),
    row("attentionMultiplier", "attention_multiplier", finite, { absent: 1 }),
    row("residualMultiplier", "residual_multiplier", finite, { absent: 1 }),
    row("logitsScaling", "logits_scaling", positive, { absent: 1 }),
  ],
  only: [
    ...hybridOnlyRows(TYPE, ["mlp_bias", "sliding_window"]),
    {
      ...{ key: "normalization_function", source: "configuration of the published releases" },
      ...{ only: ["rmsnorm", null], does: "changes the norms" },
    },
  ],
  unread: [
    ...hybridUnreadRows(TYPE),
    {
      ...{ why: "training", source: modelClass(TYPE) },
      keys: ["init_method", "output_router_logits", "router_aux_loss_coef"],
    },
  ],
  nullRefused: [],
  others: ROTARY_KEYS,
});

const ROTARY = { theta: 10_000, partial: 1 };

/** @throws CONFIG_INVALID, UNSUPPORTED; each names the key */
export function readSettings(config: Config): Settings {
  reader.refuseOtherValues(config);
  const need = (name: string) => reader.need(config, name);
  const [blocks, experts] = [need("layers"), need("experts")];
  refuseExcess(2 * blocks, blocks * experts, { file: "config.json" });
  const shared = readHybrid(config, reader, {});
  const mlp = experts > 0 ? "E" : "-";
  return {
    pattern: kindsOf(config, blocks)
      .map((kind) => (kind === "mamba" ? "M" : "*") + mlp)
      .join(""),
    ...shared,
    ffn: need("ffn"),
    ...(experts > 0 && { experts, topK: need("topK"), moeFfn: need("moeFfn") }),
    ...Object.fromEntries(MULTIPLIERS.map((name) => [name, need(name)])),
    ...(reader.read(config, "positions") === "rope" && readShareOfHead(config, shared.headDim, ROTARY)),
  };
}

function kindsOf(config: Config, blocks: number): readonly string[] {
  const kinds = reader.read(config, "kinds") as readonly string[] | undefined; // the table parses it to this type
  if (kinds !== undefined && kinds.length !== blocks)
    invalidKeyError(`layer_types has ${kinds.length} entries, but num_hidden_layers is ${blocks}`);
  return kinds ?? Array.from({ length: blocks }, () => "mamba");
}
