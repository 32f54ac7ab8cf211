/** Reads config.json into settings, and writes it for a model from another dialect, as the published releases spell it. */
import { IsologitError } from "../../../core/errors.ts";
import type { ConfigInput, Passthrough } from "../../dialect.ts";
import { invalidKeyError } from "../../parts/config-json.ts";
import { COMMON_KEYS, configOf, readHeads } from "../../parts/hf/config.ts";
import { refuseExcess } from "../../parts/limits.ts";
import { readRotary } from "../../parts/rotary.ts";
import type { Config, Settings } from "../../structure.ts";
import { type LlamaSettings, patternOf } from "../settings.ts";
import { ARCHITECTURES, configReader, isModelType, type ModelType } from "./keys.ts";

const AT = { file: "config.json" };

/** Transformers gives Qwen3 heads of this width if the config does not name one. */
const QWEN3_HEAD = 128;

/** Where the config names none. Llama's class has this base too; the makers of Llama 3 and Qwen name theirs. */
const ROPE_DEFAULTS = { theta: 10_000, partial: 1 };

/** @throws CONFIG_INVALID, UNSUPPORTED; each names the key */
export function readSettings(config: Config): LlamaSettings {
  const type = config.model_type as ModelType; // the family claims only these
  const reader = configReader(type);
  reader.refuseOtherValues(config);
  const need = (name: string) => reader.need(config, name);
  const flag = (name: string) => reader.read(config, name) === true;
  const { heads, kvHeads, headDim } = readHeads(config, reader, {
    ...(type === "llama" && { kvHeads: need("heads") }),
    ...(type === "qwen3" && { headDim: QWEN3_HEAD }),
  });
  refuseExcess(2 * need("layers"), 0, AT);
  const { window, windows } = readWindows(config, type);
  const attentionBias = ATTENTION_BIAS_OF[type](flag);
  return {
    pattern: patternOf(windows),
    hidden: need("hidden"),
    vocab: need("vocab"),
    eps: need("eps"),
    heads,
    kvHeads,
    headDim,
    ffn: need("ffn"),
    ...attentionBias,
    mlpBias: type === "llama" && flag("mlpBias"),
    qkNorm: type === "qwen3",
    tied: flag("tied"),
    ...(windows.includes(true) && { window }),
    ...readRotary(config, headDim, ROPE_DEFAULTS),
  };
}

type Biases = Pick<LlamaSettings, "qkvBias" | "outBias">;

/** Biases of attention: always in Qwen2's queries, keys and values, in all four projections by a key, or never. */
const ATTENTION_BIAS_OF: Readonly<Record<ModelType, (flag: (name: string) => boolean) => Biases>> = {
  llama: (flag) => ({ qkvBias: flag("attentionBias"), outBias: flag("attentionBias") }),
  mistral: () => ({ qkvBias: false, outBias: false }),
  qwen2: () => ({ qkvBias: true, outBias: false }),
  qwen3: (flag) => ({ qkvBias: flag("attentionBias"), outBias: flag("attentionBias") }),
};

/** The window, and for each block whether it has one. Qwen's configs name a window that a flag switches off. */
function readWindows(config: Config, type: ModelType): { window?: number; windows: readonly boolean[] } {
  const reader = configReader(type);
  const blocks = reader.need(config, "layers");
  const none = { windows: Array.from({ length: blocks }, () => false) };
  if (type === "llama" || config.sliding_window === null) return none;
  if (type !== "mistral" && reader.read(config, "slides") !== true) return none;
  const window = reader.need(config, "window");
  if (type === "mistral") return { window, windows: none.windows.map(() => true) };
  const kinds = reader.read(config, "kinds") as readonly string[] | undefined; // the table parses it to this type
  if (kinds !== undefined && kinds.length !== blocks)
    invalidKeyError(`layer_types has ${kinds.length} entries, but num_hidden_layers is ${blocks}`);
  const first = reader.need(config, "firstSliding");
  return {
    window,
    windows: none.windows.map(
      (_, i) => (kinds?.[i] ?? (i >= first ? "sliding_attention" : "")) === "sliding_attention",
    ),
  };
}

/** Keys of settings that are written as they are. */
const KEYS = { ...COMMON_KEYS, eps: "rms_norm_eps", tied: "tie_word_embeddings" };

/** The key of a setting; undefined for one that several keys hold. */
export const keyOf = (setting: string): string | undefined =>
  (({ ...KEYS, window: "sliding_window" }) as Readonly<Record<string, string>>)[setting];

/** @throws PLAN_IMPOSSIBLE for a model that no model type describes */
export function writeConfig(model: Pick<ConfigInput, "settings" | "passthrough" | "dtype">) {
  const type = modelTypeOf(model.settings, model.passthrough);
  const own = {
    ...{ architectures: [ARCHITECTURES[type]], model_type: type, hidden_act: "silu" },
    ...OWN_KEYS[type](model.settings),
  };
  return { config: configOf(model, KEYS, own), notes: [] };
}

/** Keys that only one model type has. */
const OWN_KEYS: Readonly<Record<ModelType, (settings: Settings) => Config>> = {
  llama: ({ outBias, mlpBias }) => ({ attention_bias: outBias, mlp_bias: mlpBias }),
  mistral: ({ window = null }) => ({ sliding_window: window }),
  qwen2: slidingKeys,
  qwen3: (settings) => ({ attention_bias: settings.outBias, ...slidingKeys(settings) }),
};

/** The blocks with a window are the last ones. */
function slidingKeys({ window, pattern }: Settings): Config {
  const first = String(pattern).indexOf("s");
  return window === undefined
    ? { use_sliding_window: false, sliding_window: null }
    : { use_sliding_window: true, sliding_window: window, max_window_layers: first / 2 };
}

/** The model type that the source names, if it can describe the settings; else the first one that can. */
function modelTypeOf(settings: Settings, { modelType }: Passthrough): ModelType {
  const fits = (Object.keys(ARCHITECTURES) as ModelType[]).filter((type) => describes(type, settings));
  const [first] = fits;
  if (first === undefined) throw notDescribed(settings);
  return isModelType(modelType) && fits.includes(modelType) ? modelType : first;
}

/** Whether the config of a model type can say these settings. */
function describes(type: ModelType, { pattern, qkvBias, outBias, mlpBias, qkNorm }: Settings): boolean {
  const slides = /^(s-)+$/.test(String(pattern));
  const slidesLate = /^(\*-)*(s-)*$/.test(String(pattern));
  const never = !String(pattern).includes("s");
  switch (type) {
    case "llama":
      return never && qkvBias === outBias && !qkNorm;
    case "mistral":
      return (never || slides) && !qkvBias && !outBias && !mlpBias && !qkNorm;
    case "qwen2":
      return slidesLate && qkvBias === true && !outBias && !mlpBias && !qkNorm;
    case "qwen3":
      return slidesLate && qkvBias === outBias && !mlpBias && qkNorm === true;
    default:
      return type satisfies never;
  }
}

function notDescribed(settings: Settings): IsologitError {
  const { qkvBias, outBias, mlpBias, qkNorm } = settings;
  const traits = Object.entries({ qkvBias, outBias, mlpBias, qkNorm }).map(
    ([name, value]) => `${name} ${value}`,
  );
  const message = `no model type of Transformers has this architecture (${traits.join(", ")}, layers ${settings.pattern})`;
  return new IsologitError(
    "PLAN_IMPOSSIBLE",
    message,
    {},
    { next: "convert it to packed, or to the format it comes from" },
  );
}
