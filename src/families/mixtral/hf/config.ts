/** Reads config.json into settings, and writes it for a model from another dialect, as the published releases spell it. */
import { IsologitError } from "../../../core/errors.ts";
import type { ConfigInput } from "../../dialect.ts";
import { COMMON_KEYS, configOf, readHeads } from "../../parts/hf/config.ts";
import { refuseExcess } from "../../parts/limits.ts";
import { readRotary } from "../../parts/rotary.ts";
import type { Config, Settings } from "../../structure.ts";
import type { MixtralSettings } from "../settings.ts";
import { ARCHITECTURES, configReader, type MixtralModelType } from "./keys.ts";

/** Defaults of Transformers. */
const ROPE_DEFAULTS = {
  mixtral: { theta: 1e6, partial: 1 },
  qwen3_moe: { theta: 10_000, partial: 1 },
} as const;

/** @throws CONFIG_INVALID, UNSUPPORTED; each names the key */
export function readSettings(config: Config): MixtralSettings {
  const type = config.model_type as MixtralModelType; // the family claims only these
  const reader = configReader(type);
  reader.refuseOtherValues(config);
  const need = (name: string) => reader.need(config, name);
  const isQwen = type === "qwen3_moe";
  const flag = (name: string) => reader.read(config, name) === true;
  const heads = readHeads(config, reader);
  const [blocks, experts] = [need("layers"), need("experts")];
  refuseExcess(2 * blocks, blocks * experts, { file: "config.json" });
  const window =
    config.sliding_window === null || (isQwen && !flag("slides")) ? undefined : reader.read(config, "window");
  const sparse = isQwen ? sparseBlocks(config, blocks) : Array.from({ length: blocks }, () => true);
  const attention = window === undefined ? "*" : "s";
  return {
    pattern: sparse.map((isSparse) => attention + (isSparse ? "E" : "-")).join(""),
    hidden: need("hidden"),
    vocab: need("vocab"),
    eps: need("eps"),
    attentionBias: isQwen && flag("attentionBias"),
    qkNorm: isQwen,
    tied: flag("tied"),
    ...(window !== undefined && { window: Number(window) }),
    ...(sparse.includes(false) && { ffn: need("ffn") }),
    ...(sparse.includes(true) && {
      ...{ experts, topK: need("topK"), moeFfn: need(isQwen ? "moeFfn" : "ffn") },
      routeNormalise: !isQwen || flag("routeNormalise"),
    }),
    ...heads,
    ...readRotary(config, heads.headDim, ROPE_DEFAULTS[type]),
  };
}

/** For each block whether it has experts. */
function sparseBlocks(config: Config, blocks: number): readonly boolean[] {
  const reader = configReader("qwen3_moe");
  const step = reader.need(config, "sparseStep");
  const dense = reader.read(config, "denseBlocks") as readonly number[]; // the table parses it to this type
  return Array.from({ length: blocks }, (_, i) => !dense.includes(i) && (i + 1) % step === 0);
}

/** Keys of settings that are written as they are. */
const KEYS = {
  ...COMMON_KEYS,
  eps: "rms_norm_eps",
  topK: "num_experts_per_tok",
  tied: "tie_word_embeddings",
};
const OWN_KEYS = {
  mixtral: { experts: "num_local_experts", moeFfn: "intermediate_size" },
  qwen3_moe: {
    ...{ experts: "num_experts", moeFfn: "moe_intermediate_size" },
    ...{ routeNormalise: "norm_topk_prob", attentionBias: "attention_bias" },
  },
} as const;

/** The key of a setting; undefined for one that several keys hold, or whose key differs between model types. */
export const keyOf = (setting: string): string | undefined =>
  (({ ...KEYS, window: "sliding_window" }) as Readonly<Record<string, string>>)[setting];

/** @throws PLAN_IMPOSSIBLE for a model that no model type describes */
export function writeConfig(model: Pick<ConfigInput, "settings" | "passthrough" | "dtype">) {
  const { settings, passthrough } = model;
  const type = modelTypeOf(settings, passthrough.modelType);
  const { window = null } = settings;
  const mlps = Array.from(String(settings.pattern).matchAll(/.(.)/g), ([, letter]) => letter);
  const own = {
    architectures: [ARCHITECTURES[type]],
    model_type: type,
    hidden_act: "silu",
    sliding_window: window,
    ...(type === "qwen3_moe" && {
      use_sliding_window: window !== null,
      decoder_sparse_step: 1,
      mlp_only_layers: [...mlps.keys()].filter((i) => mlps[i] === "-"),
    }),
  };
  return { config: configOf(model, { ...KEYS, ...OWN_KEYS[type] }, own), notes: [] };
}

/** The model type that the source names, if it can describe the settings; else the first one that can. */
function modelTypeOf(settings: Settings, named: unknown): MixtralModelType {
  const fits = (Object.keys(ARCHITECTURES) as MixtralModelType[]).filter((type) => describes(type, settings));
  const type = fits.find((one) => one === named) ?? fits[0];
  if (type !== undefined) return type;
  const { attentionBias, qkNorm, routeNormalise } = settings;
  const traits = Object.entries({ attentionBias, qkNorm, routeNormalise }).map(
    ([name, value]) => `${name} ${value}`,
  );
  const message = `no model type of Transformers has this architecture (${traits.join(", ")}, layers ${settings.pattern})`;
  const next = "convert it to packed, or to the format it comes from";
  throw new IsologitError("PLAN_IMPOSSIBLE", message, {}, { next });
}

/** Whether the config of a model type can say these settings. */
function describes(
  type: MixtralModelType,
  { pattern, attentionBias, qkNorm, routeNormalise }: Settings,
): boolean {
  if (type === "qwen3_moe") return qkNorm === true && /^((\*.)+|(s.)+)$/.test(String(pattern));
  return !attentionBias && !qkNorm && routeNormalise === true && /^((\*E)+|(sE)+)$/.test(String(pattern));
}
