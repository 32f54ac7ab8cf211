/** Reads and writes the keys with which llama.cpp loads Llama, Mistral, Qwen2 and Qwen3. */
import { IsologitError } from "../../../core/errors.ts";
import type { ConfigInput, ObservedFacts, ParsedConfig } from "../../dialect.ts";
import { blockCount } from "../../parts/blocks.ts";
import { GgufKeys } from "../../parts/gguf/keys.ts";
import { otherAngles, readGgufRotary, rotaryKeys } from "../../parts/gguf/rotary.ts";
import { refuseExcess } from "../../parts/limits.ts";
import type { Config, Settings } from "../../structure.ts";
import { type LlamaSettings, patternOf } from "../settings.ts";

/** llama.cpp's names. Mistral is its `llama`. */
export const ARCHITECTURES = ["llama", "qwen2", "qwen3"] as const;
type Architecture = (typeof ARCHITECTURES)[number];

/** What llama.cpp assumes where a file has no length. */
const CONTEXT = 4096;

/** The architecture that has these biases and norms. */
export function architectureOf({ qkNorm, qkvBias, outBias }: Settings): Architecture {
  if (qkNorm === true) return "qwen3";
  return qkvBias === true && outBias !== true ? "qwen2" : "llama";
}

/** @throws CONFIG_INVALID, UNSUPPORTED; each names the key */
export function readSettings(config: Config, seen: ObservedFacts): ParsedConfig {
  const keys = new GgufKeys(config);
  const names = new Set(seen.tensors.map(({ name }) => name));
  if (keys.has("expert_count")) {
    const message = `${keys.architecture}.expert_count is there: this is a model of experts, of another family`;
    throw new IsologitError("UNSUPPORTED", message);
  }
  refuseExcess(2 * keys.blocks, 0);
  const [hidden, heads] = [keys.count("embedding_length"), keys.count("attention.head_count")];
  const headDim = keys.count("attention.key_length", hidden / heads);
  const table = seen.tensors.find(({ name }) => name === "token_embd.weight");
  const settings: LlamaSettings = {
    pattern: patternOf(Array.from({ length: keys.blocks }, () => false)),
    hidden,
    vocab: table?.shape[0] ?? keys.count("vocab_size"),
    eps: keys.number("attention.layer_norm_rms_epsilon"),
    heads,
    kvHeads: keys.count("attention.head_count_kv", heads),
    headDim,
    ffn: keys.count("feed_forward_length"),
    qkvBias: names.has("blk.0.attn_q.bias"),
    outBias: names.has("blk.0.attn_output.bias"),
    mlpBias: names.has("blk.0.ffn_up.bias"),
    qkNorm: keys.architecture === "qwen3",
    tied: table !== undefined && !names.has("output.weight"),
    ...readGgufRotary(keys, config, headDim, seen),
  };
  const passthrough = { maxPositions: keys.count("context_length"), modelType: keys.architecture };
  return { settings, passthrough, notes: [] };
}

export function writeConfig({ settings, passthrough }: ConfigInput): {
  readonly config: Config;
  readonly notes: readonly string[];
} {
  const architecture = architectureOf(settings);
  const rotary = rotaryKeys(settings);
  const keys: Config = {
    block_count: blockCount(settings),
    context_length: passthrough.maxPositions ?? CONTEXT,
    embedding_length: settings.hidden,
    feed_forward_length: settings.ffn,
    "attention.head_count": settings.heads,
    "attention.head_count_kv": settings.kvHeads,
    ...rotary.keys,
    "attention.layer_norm_rms_epsilon": settings.eps,
    "attention.key_length": settings.headDim,
    "attention.value_length": settings.headDim,
    vocab_size: settings.vocab,
  };
  const named = Object.entries(keys).map(([key, value]) => [`${architecture}.${key}`, value]);
  return {
    config: { "general.architecture": architecture, ...Object.fromEntries(named), ...rotary.own },
    notes: [],
  };
}

/** @throws PLAN_IMPOSSIBLE for a model that llama.cpp would refuse, or compute in another way */
export function refuseOtherFunctions(settings: Settings): void {
  const architecture = architectureOf(settings);
  const hasBias = settings.qkvBias === true || settings.outBias === true || settings.mlpBias === true;
  const reasons: readonly (readonly [boolean, string])[] = [
    [
      String(settings.pattern).includes("s"),
      `it has no window of ${settings.window} tokens in the architecture ${architecture}: longer texts would get other logits`,
    ],
    [architecture === "qwen3" && hasBias, "its architecture qwen3 has no biases, and this model has some"],
    [
      architecture === "qwen2" && settings.mlpBias === true,
      "its architecture qwen2 has no biases in MLPs, and this model has some",
    ],
    [otherAngles(settings) !== null, String(otherAngles(settings))],
  ]; // prettier-ignore
  const reason = reasons.find(([applies]) => applies)?.[1];
  if (reason === undefined) return;
  const next = "convert it to hf, packed, nemo2, bridge or megatron, which can hold it";
  throw new IsologitError("PLAN_IMPOSSIBLE", `llama.cpp cannot run this model: ${reason}`, {}, { next });
}
