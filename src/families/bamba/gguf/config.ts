/** Reads and writes the keys with which llama.cpp loads Bamba: its architecture granitehybrid, without multipliers. */
import type { ConfigInput, ObservedFacts, ParsedConfig } from "../../dialect.ts";
import { GRANITE_HYBRID, hybridKeys, readHybrid, turnsShare } from "../../parts/gguf/hybrid-keys.ts";
import { GgufKeys, hasArchitecture } from "../../parts/gguf/keys.ts";
import { refuseExcess } from "../../parts/limits.ts";
import type { Config } from "../../structure.ts";

/** In files that are written here: which elements of a head are in pairs. */
const PAIRS = "isologit.rope.pairs";
const TURNED = "turned";

export const isGguf = (config: Config): boolean =>
  hasArchitecture(config, [GRANITE_HYBRID]) && turnsShare(config);

/** Whether the elements that are turned are in pairs by themselves. The genuine converter pairs those of the whole head. */
export const pairsTurned = (config: Config): boolean => config[PAIRS] === TURNED;

/** @throws CONFIG_INVALID, UNSUPPORTED; each names the key */
export function readSettings(config: Config, seen: ObservedFacts): ParsedConfig {
  const keys = new GgufKeys(config);
  refuseExcess(2 * keys.blocks, 0);
  const { mixers, settings: shared } = readHybrid(keys, config, seen);
  if (shared.rotary !== Number(shared.headDim) / 2)
    keys.refuse("rope.dimension_count", `must be half of a head, which has ${shared.headDim} elements`);
  const settings = {
    pattern: mixers.map((mixer) => `${mixer}-`).join(""),
    ...shared,
    ffn: keys.count("feed_forward_length"),
    mlpBias: seen.tensors.some(({ name }) => name === "blk.0.ffn_up.bias"),
  };
  return { settings, passthrough: { maxPositions: keys.count("context_length") }, notes: [] };
}

export function writeConfig({ settings, passthrough }: ConfigInput): {
  readonly config: Config;
  readonly notes: readonly string[];
} {
  const config = hybridKeys(GRANITE_HYBRID, settings, passthrough, { feed_forward_length: settings.ffn });
  return { config: { ...config, [PAIRS]: TURNED }, notes: [] };
}
