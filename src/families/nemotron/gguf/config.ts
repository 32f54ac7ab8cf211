/** Reads and writes the keys with which llama.cpp loads Nemotron-3, Nemotron-4 and Minitron: its architecture nemotron. */
import type { ConfigInput, ObservedFacts, ParsedConfig } from "../../dialect.ts";
import { blockCount } from "../../parts/blocks.ts";
import { attentionKeys, readAttention } from "../../parts/gguf/attention-keys.ts";
import type { Limit } from "../../parts/gguf/dialect.ts";
import { GgufKeys, hasArchitecture } from "../../parts/gguf/keys.ts";
import { otherAngles } from "../../parts/gguf/rotary.ts";
import { refuseExcess } from "../../parts/limits.ts";
import type { Config, Settings } from "../../structure.ts";
import type { NemotronSettings } from "../settings.ts";

const ARCHITECTURE = "nemotron";

export const isGguf = (config: Config): boolean => hasArchitecture(config, [ARCHITECTURE]);

/** @throws CONFIG_INVALID, UNSUPPORTED; each names the key */
export function readSettings(config: Config, seen: ObservedFacts): ParsedConfig {
  const keys = new GgufKeys(config);
  const has = (name: string) => seen.tensors.some((tensor) => tensor.name === name);
  refuseExcess(2 * keys.blocks, 0);
  const settings: NemotronSettings = {
    pattern: "*-".repeat(keys.blocks),
    ...readAttention(keys, config, seen, "layer"),
    ffn: keys.count("feed_forward_length"),
    attentionBias: has("blk.0.attn_q.bias"),
    mlpBias: has("blk.0.ffn_up.bias"),
  };
  return { settings, passthrough: { maxPositions: keys.count("context_length") }, notes: [] };
}

export function writeConfig({ settings, passthrough }: ConfigInput): {
  readonly config: Config;
  readonly notes: readonly string[];
} {
  const keys = { block_count: blockCount(settings), feed_forward_length: settings.ffn };
  return { config: attentionKeys(ARCHITECTURE, settings, passthrough, keys, "layer"), notes: [] };
}

/** What llama.cpp cannot compute of these models. */
export function limits(settings: Settings): readonly Limit[] {
  const { hidden, heads, headDim } = settings;
  return [
    [
      Number(heads) * Number(headDim) !== hidden,
      `it reads queries of the hidden width in this architecture, and this model has ${heads} heads of ${headDim} and the width ${hidden}`,
    ],
    [
      settings.ropeScaling === "llama3",
      "it has no factors of rotary frequencies in this architecture, and this model has those of Llama 3.1",
    ],
    [otherAngles(settings) !== null, String(otherAngles(settings))],
  ];
}
