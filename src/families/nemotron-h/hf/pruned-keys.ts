/** The keys of config.json that a cut changes, each in the words of the source. */
import type { ConfigCut } from "../../prunable.ts";
import type { Config } from "../../structure.ts";

const COUNTS: Readonly<Record<string, string>> = {
  hidden: "hidden_size",
  ffn: "intermediate_size",
  mambaHeads: "mamba_num_heads",
  heads: "num_attention_heads",
};

const LISTS = ["layers_block_type", "layer_types"];

/** Keys in the order in which new ones are added, with their values. */
export function prunedKeys(config: Config, { changed, layers, before }: ConfigCut): Config {
  const keys: Record<string, unknown> = {};
  for (const [setting, key] of Object.entries(COUNTS))
    if (changed[setting] !== undefined) keys[key] = changed[setting];
  // without the key, loaders would compute another width from the numbers that have changed
  const hasHeads = changed.heads !== undefined || changed.hidden !== undefined;
  if (hasHeads && before.headDim !== undefined && config.head_dim !== before.headDim)
    keys.head_dim = before.headDim;
  if (layers === undefined) return keys;
  const { hybrid_override_pattern: pattern, num_hidden_layers: count } = config;
  if (typeof pattern === "string") {
    const steps = /\/.*$/.exec(pattern)?.[0] ?? "";
    const all = String(before.pattern);
    keys.hybrid_override_pattern = layers.map((layer) => all[layer]).join("") + steps;
  }
  for (const key of LISTS) {
    const words = config[key];
    if (Array.isArray(words)) keys[key] = layers.map((layer) => words[layer] as unknown);
  }
  if (count !== undefined) keys.num_hidden_layers = layers.length;
  return keys;
}
