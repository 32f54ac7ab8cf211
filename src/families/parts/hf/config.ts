/** What the config.json of models of blocks share: heads, and keys that are written as they are. */
import type { ConfigInput, Passthrough } from "../../dialect.ts";
import type { Config } from "../../structure.ts";
import { blockCount } from "../blocks.ts";
import { type ConfigJson, invalidKeyError } from "../config-json.ts";
import { rotaryConfig } from "../rotary.ts";

interface Heads {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

/**
 * The heads of attention.
 *
 * @param absent values where the config names none; default of `kvHeads`: refused; of `headDim`: the hidden width / heads
 * @throws CONFIG_INVALID for heads that do not divide evenly
 */
export function readHeads(
  config: Config,
  reader: ConfigJson,
  absent: { readonly kvHeads?: number; readonly headDim?: number } = {},
): Heads {
  const need = (name: string) => reader.need(config, name);
  const [heads, hidden] = [need("heads"), need("hidden")];
  const kvHeads = Number(reader.read(config, "kvHeads") ?? absent.kvHeads ?? need("kvHeads"));
  const headDim = Number(reader.read(config, "headDim") ?? absent.headDim ?? hidden / heads);
  if (!Number.isInteger(headDim))
    invalidKeyError(
      `hidden_size is ${hidden}, which is not a multiple of num_attention_heads, ${heads}, and head_dim is absent`,
    );
  if (heads % kvHeads !== 0)
    invalidKeyError(
      `num_attention_heads is ${heads}, which is not a multiple of num_key_value_heads, ${kvHeads}`,
    );
  return { heads, kvHeads, headDim };
}

/** Values on which no forward pass depends, and their keys. */
export const PASSTHROUGH_KEYS = {
  maxPositions: "max_position_embeddings",
  chunk: "mamba_chunk_size",
  expand: "mamba_expand",
} as const;

/** Values that the configs of other dialects contain as well. */
export function readPassthrough(config: Config): Passthrough {
  const numbers = Object.entries(PASSTHROUGH_KEYS).flatMap(([name, key]) => {
    const value = config[key];
    return typeof value === "number" ? [[name, value] as const] : [];
  });
  return { ...Object.fromEntries(numbers), modelType: String(config.model_type) };
}

/** Settings that most families have, and their keys: they are written as they are. */
export const COMMON_KEYS = {
  hidden: "hidden_size",
  vocab: "vocab_size",
  ffn: "intermediate_size",
  heads: "num_attention_heads",
  kvHeads: "num_key_value_heads",
  headDim: "head_dim",
  ropeTheta: "rope_theta",
} as const;

/**
 * The config.json of a model from another dialect, as the published releases spell it.
 *
 * @param keys settings that are written as they are, and their keys
 * @param own  the other keys of the model type
 */
export function configOf(
  { settings, passthrough, dtype }: Pick<ConfigInput, "settings" | "passthrough" | "dtype">,
  keys: Readonly<Record<string, string>>,
  own: Config,
): Config {
  const asTheyAre = Object.entries(keys).filter(([setting]) => settings[setting] !== undefined);
  const config: Config = {
    num_hidden_layers: blockCount(settings),
    torch_dtype: dtype,
    ...Object.fromEntries(asTheyAre.map(([setting, key]) => [key, settings[setting]])),
    ...(typeof passthrough.maxPositions === "number" && {
      max_position_embeddings: passthrough.maxPositions,
    }),
    ...rotaryConfig(settings),
    ...own,
  };
  return Object.fromEntries(Object.entries(config).sort(([a], [b]) => (a < b ? -1 : 1)));
}
