/** Reads and writes the keys with which llama.cpp loads Granite 4.0: one architecture with Mamba layers, and two without. */
import type { ConfigInput, ObservedFacts, ParsedConfig } from "../../dialect.ts";
import type { Limit } from "../../parts/gguf/dialect.ts";
import {
  GRANITE_HYBRID,
  hasMamba,
  hybridKeys,
  hybridLimits,
  readHybrid,
  turnsShare,
} from "../../parts/gguf/hybrid-keys.ts";
import { GgufKeys, hasArchitecture } from "../../parts/gguf/keys.ts";
import { refuseExcess } from "../../parts/limits.ts";
import type { Config, Settings } from "../../structure.ts";

/** Models without Mamba layers, with an MLP in each block or with experts. The earlier Granite 3 is computed alike. */
const ATTENTION = { mlp: "granite", experts: "granitemoe" } as const;

/** llama.cpp's keys of the multipliers. An absent one, or 0, is 1 there, and 1 / √head_dim for attention. */
const MULTIPLIERS = {
  embeddingMultiplier: "embedding_scale",
  attentionMultiplier: "attention.scale",
  residualMultiplier: "residual_scale",
  logitsScaling: "logit_scale",
} as const;

/** Whether the keys are those of a model of this family. */
export const isGguf = (config: Config): boolean =>
  hasArchitecture(config, Object.values(ATTENTION)) ||
  (hasArchitecture(config, [GRANITE_HYBRID]) && !turnsShare(config));

/** @throws CONFIG_INVALID, UNSUPPORTED; each names the key */
export function readSettings(config: Config, seen: ObservedFacts): ParsedConfig {
  const keys = new GgufKeys(config);
  const experts = keys.has("expert_count") ? keys.count("expert_count") : 0;
  refuseExcess(2 * keys.blocks, keys.blocks * experts);
  const { mixers, settings: shared } = readHybrid(
    keys,
    config,
    seen,
    keys.architecture === ATTENTION.experts,
  );
  const usual: Readonly<Record<string, number>> = {
    attentionMultiplier: 1 / Math.sqrt(Number(shared.headDim)),
  };
  const settings: Settings = {
    pattern: mixers.map((mixer) => mixer + (experts > 0 ? "E" : "-")).join(""),
    ...shared,
    ffn: keys.count(experts > 0 ? "expert_shared_feed_forward_length" : "feed_forward_length"),
    ...(experts > 0 && {
      ...{ experts, topK: keys.count("expert_used_count"), moeFfn: keys.count("feed_forward_length") },
    }),
    ...Object.fromEntries(
      Object.entries(MULTIPLIERS).map(([setting, key]) => [
        setting,
        keys.number(key, 0) || (usual[setting] ?? 1),
      ]),
    ),
  };
  return { settings, passthrough: { maxPositions: keys.count("context_length") }, notes: [] };
}

export function writeConfig({ settings, passthrough }: ConfigInput): {
  readonly config: Config;
  readonly notes: readonly string[];
} {
  const multipliers = Object.entries(MULTIPLIERS).map(([setting, key]) => [key, settings[setting]] as const);
  const hasExperts = settings.experts !== undefined;
  const keys: Config = {
    feed_forward_length: hasExperts ? settings.moeFfn : settings.ffn,
    ...(hasExperts && {
      ...{ expert_count: settings.experts, expert_used_count: settings.topK },
      expert_shared_feed_forward_length: settings.ffn,
    }),
    ...Object.fromEntries(multipliers),
  };
  const withoutMamba = hasExperts ? ATTENTION.experts : ATTENTION.mlp;
  const architecture = hasMamba(settings) ? GRANITE_HYBRID : withoutMamba;
  return { config: hybridKeys(architecture, settings, passthrough, keys), notes: [] };
}

/** What llama.cpp cannot compute of these models. */
export function limits(settings: Settings): readonly Limit[] {
  const turnsAlways = !hasMamba(settings) && settings.experts !== undefined;
  return [
    ...hybridLimits(settings),
    [
      turnsAlways && settings.rotary === undefined,
      "it turns the heads of models with experts and without Mamba layers, and this model has no positions",
    ],
    ...Object.entries(MULTIPLIERS).map(
      ([setting, key]): Limit => [
        settings[setting] === 0,
        `it reads ${key} 0 as none, and this model multiplies by 0`,
      ],
    ),
  ];
}
