/** Reads and writes the keys with which llama.cpp loads Mixtral (its `llama` with experts) and Qwen3-MoE. */
import type { ConfigInput, ObservedFacts, ParsedConfig } from "../../dialect.ts";
import { blockCount } from "../../parts/blocks.ts";
import { attentionKeys, readAttention, tiedHead } from "../../parts/gguf/attention-keys.ts";
import type { Limit } from "../../parts/gguf/dialect.ts";
import { GgufKeys, hasArchitecture } from "../../parts/gguf/keys.ts";
import { otherAngles } from "../../parts/gguf/rotary.ts";
import { refuseExcess } from "../../parts/limits.ts";
import type { Config, Settings } from "../../structure.ts";
import type { MixtralSettings } from "../settings.ts";

/** Whether the keys are those of a model of this family. Dense models of the architecture `llama` are of another one. */
export const isGguf = (config: Config): boolean =>
  hasArchitecture(config, ["qwen3moe"]) ||
  (hasArchitecture(config, ["llama"]) && config["llama.expert_count"] !== undefined);

/** @throws CONFIG_INVALID, UNSUPPORTED; each names the key */
export function readSettings(config: Config, seen: ObservedFacts): ParsedConfig {
  const keys = new GgufKeys(config);
  const isQwen = keys.architecture === "qwen3moe";
  const experts = keys.count("expert_count");
  refuseExcess(2 * keys.blocks, keys.blocks * experts);
  const settings: MixtralSettings = {
    pattern: "*E".repeat(keys.blocks),
    ...readAttention(keys, config, seen),
    attentionBias: false,
    qkNorm: isQwen,
    tied: tiedHead(seen),
    ...{ experts, topK: keys.count("expert_used_count"), routeNormalise: true },
    moeFfn: keys.count(isQwen ? "expert_feed_forward_length" : "feed_forward_length"),
  };
  const modelType = isQwen ? "qwen3_moe" : "mixtral";
  return { settings, passthrough: { maxPositions: keys.count("context_length"), modelType }, notes: [] };
}

export function writeConfig({ settings, passthrough }: ConfigInput): {
  readonly config: Config;
  readonly notes: readonly string[];
} {
  const isQwen = settings.qkNorm === true;
  const keys: Config = {
    block_count: blockCount(settings),
    // the width of dense layers, which this model does not have, is that of an expert
    feed_forward_length: settings.moeFfn,
    expert_count: settings.experts,
    expert_used_count: settings.topK,
    ...(isQwen && { expert_feed_forward_length: settings.moeFfn }),
  };
  return { config: attentionKeys(isQwen ? "qwen3moe" : "llama", settings, passthrough, keys), notes: [] };
}

/** What llama.cpp cannot compute of these models. */
export function limits(settings: Settings): readonly Limit[] {
  const pattern = String(settings.pattern);
  return [
    [
      pattern.includes("s"),
      `it has no window of ${settings.window} tokens in this architecture: longer texts would get other logits`,
    ],
    [
      pattern.includes("-"),
      "it makes every feed-forward layer one of experts, and this model has MLP layers too",
    ],
    [settings.attentionBias === true, "its architecture has no biases in attention, and this model has some"],
    [
      settings.routeNormalise !== true,
      "it divides the weights of the chosen experts by their sum, and this model does not (norm_topk_prob)",
    ],
    [otherAngles(settings) !== null, String(otherAngles(settings))],
  ]; // prettier-ignore
}
