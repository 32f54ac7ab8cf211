/** Reads and writes the keys with which llama.cpp loads Llama, Mistral, Qwen2 and Qwen3. */
import type { ConfigInput, ObservedFacts, ParsedConfig } from "../../dialect.ts";
import { blockCount } from "../../parts/blocks.ts";
import { attentionKeys, readAttention, tiedHead } from "../../parts/gguf/attention-keys.ts";
import type { Limit } from "../../parts/gguf/dialect.ts";
import { GgufKeys, hasArchitecture } from "../../parts/gguf/keys.ts";
import { otherAngles } from "../../parts/gguf/rotary.ts";
import { refuseExcess } from "../../parts/limits.ts";
import type { Config, Settings } from "../../structure.ts";
import { type LlamaSettings, patternOf } from "../settings.ts";

/** llama.cpp's names. Mistral is its `llama`. */
const ARCHITECTURES = ["llama", "qwen2", "qwen3"] as const;

/** Whether the keys are those of a model of this family. Models of experts of the architecture `llama` are of another one. */
export const isGguf = (config: Config): boolean =>
  hasArchitecture(config, ARCHITECTURES) && config["llama.expert_count"] === undefined;

/** The architecture that has these biases and norms. */
function architectureOf({ qkNorm, qkvBias, outBias }: Settings): (typeof ARCHITECTURES)[number] {
  if (qkNorm === true) return "qwen3";
  return qkvBias === true && outBias !== true ? "qwen2" : "llama";
}

/** @throws CONFIG_INVALID, UNSUPPORTED; each names the key */
export function readSettings(config: Config, seen: ObservedFacts): ParsedConfig {
  const keys = new GgufKeys(config);
  const names = new Set(seen.tensors.map(({ name }) => name));
  refuseExcess(2 * keys.blocks, 0);
  const settings: LlamaSettings = {
    pattern: patternOf(Array.from({ length: keys.blocks }, () => false)),
    ...readAttention(keys, config, seen),
    ffn: keys.count("feed_forward_length"),
    qkvBias: names.has("blk.0.attn_q.bias"),
    outBias: names.has("blk.0.attn_output.bias"),
    mlpBias: names.has("blk.0.ffn_up.bias"),
    qkNorm: keys.architecture === "qwen3",
    tied: tiedHead(seen),
  };
  const passthrough = { maxPositions: keys.count("context_length"), modelType: keys.architecture };
  return { settings, passthrough, notes: [] };
}

export function writeConfig({ settings, passthrough }: ConfigInput): {
  readonly config: Config;
  readonly notes: readonly string[];
} {
  const keys = { block_count: blockCount(settings), feed_forward_length: settings.ffn };
  return { config: attentionKeys(architectureOf(settings), settings, passthrough, keys), notes: [] };
}

/** What llama.cpp cannot compute of these models. */
export function limits(settings: Settings): readonly Limit[] {
  const architecture = architectureOf(settings);
  const hasBias = settings.qkvBias === true || settings.outBias === true || settings.mlpBias === true;
  return [
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
}
