/**
 * Reads and writes the keys with which llama.cpp loads Falcon-H1. It has no keys for the multipliers: weights are multiplied by
 * them in its files. Keys of our own hold them, and a file without these is a model whose multipliers are 1.
 */
import { IsologitError } from "../../../core/errors.ts";
import type { ConfigInput, ObservedFacts, ParsedConfig } from "../../dialect.ts";
import { blockCount } from "../../parts/blocks.ts";
import { attentionKeys } from "../../parts/gguf/attention-keys.ts";
import type { Limit } from "../../parts/gguf/dialect.ts";
import { readHybrid } from "../../parts/gguf/hybrid-keys.ts";
import { GgufKeys, hasArchitecture } from "../../parts/gguf/keys.ts";
import { mambaKeys, mambaLimits } from "../../parts/gguf/mamba-keys.ts";
import { refuseExcess } from "../../parts/limits.ts";
import type { Config, Settings } from "../../structure.ts";
import { MULTIPLIER_LISTS, MULTIPLIER_SETTINGS, MULTIPLIERS } from "../multipliers.ts";

const ARCHITECTURE = "falcon-h1";

export const isGguf = (config: Config): boolean => hasArchitecture(config, [ARCHITECTURE]);

/** Begins keys of our own, each with one multiplier. */
const OWN = "isologit.multipliers.";

/** The multipliers, in the keys of our own; 1 where there is none. @throws CONFIG_INVALID for one that nothing is divided by */
function readMultipliers(config: Config): Settings {
  const of = (key: string) => {
    const value = config[OWN + key] ?? 1;
    if (typeof value === "number" && Number.isFinite(value) && value !== 0) return value;
    throw new IsologitError(
      "CONFIG_INVALID",
      `the key ${OWN}${key} is ${String(value)}; it must be a number, and not 0`,
    );
  };
  return Object.fromEntries([
    ...Object.entries(MULTIPLIERS).map(([setting, key]) => [setting, of(key)]),
    ...MULTIPLIER_LISTS.map(({ setting, key, length }) => [
      setting,
      Array.from({ length }, (_, i) => of(`${key}.${i}`)),
    ]),
  ]);
}

function multiplierKeys(settings: Settings): Config {
  const lists = MULTIPLIER_LISTS.flatMap(({ setting, key }) =>
    [settings[setting]].flat().map((value, i) => [`${OWN}${key}.${i}`, value] as const),
  );
  const single = Object.entries(MULTIPLIERS).map(([setting, key]) => [OWN + key, settings[setting]] as const);
  return Object.fromEntries([...single, ...lists]);
}

/** @throws CONFIG_INVALID, UNSUPPORTED; each names the key */
export function readSettings(config: Config, seen: ObservedFacts): ParsedConfig {
  const keys = new GgufKeys(config);
  refuseExcess(2 * keys.blocks, 0);
  const mambaRmsNorm = seen.tensors.some(({ name }) => name === "blk.0.ssm_norm.weight");
  const settings: Settings = {
    pattern: "H-".repeat(keys.blocks),
    ...readHybrid(keys, config, seen).settings,
    ffn: keys.count("feed_forward_length"),
    ...{ mlpBias: false, projectorsBias: false, mambaRmsNorm },
    ...(mambaRmsNorm && { normBeforeGate: false }),
    ...readMultipliers(config),
  };
  return { settings, passthrough: { maxPositions: keys.count("context_length") }, notes: [] };
}

export function writeConfig({ settings, passthrough }: ConfigInput): {
  readonly config: Config;
  readonly notes: readonly string[];
} {
  const keys = {
    ...{ block_count: blockCount(settings), feed_forward_length: settings.ffn },
    ...mambaKeys(settings),
  };
  const config = attentionKeys(ARCHITECTURE, settings, passthrough, keys);
  return { config: { ...config, ...multiplierKeys(settings) }, notes: [] };
}

const BIASES = ["attentionBias", "mlpBias", "projectorsBias"];

/** What llama.cpp cannot compute of these models. */
export function limits(settings: Settings): readonly Limit[] {
  const values = MULTIPLIER_SETTINGS.flatMap((name) => [settings[name]].flat());
  const { ropeScaling, embeddingMultiplier, lmHeadMultiplier, tied } = settings;
  return [
    [
      tied === true && embeddingMultiplier !== lmHeadMultiplier,
      `its files have one table for tokens and head where they are tied, and this model multiplies them by ${embeddingMultiplier} and ${lmHeadMultiplier}`,
    ],
    [settings.normBeforeGate === true, "it norms after the gate, and this model norms before it"],
    ...mambaLimits(settings),
    [
      BIASES.some((name) => settings[name] === true),
      "its files of this architecture are written without biases",
    ],
    [ropeScaling !== "none", `its files of this architecture are written without ${ropeScaling} scaling`],
    [
      values.includes(0),
      "weights are multiplied in its files, and those of this model would be multiplied by 0",
    ],
  ];
}
