/** Nemotron-3 and Nemotron-4, and the Minitron models pruned from them: dense, with layer norms and squared ReLU. */
import { IsologitError } from "../../core/errors.ts";
import type { Family } from "../family.ts";
import { isGpt } from "../parts/gpt/read.ts";
import type { Config } from "../structure.ts";
import { dims, type NemotronDims } from "./dims.ts";
import { forward } from "./forward.ts";
import { isGguf } from "./gguf/config.ts";
import { gguf } from "./gguf/dialect.ts";
import { hf } from "./hf/dialect.ts";
import { megatronDialects } from "./megatron.ts";
import { recipes } from "./recipes.ts";
import { roles } from "./roles.ts";
import { KINDS, layers } from "./settings.ts";

/** Its models in Megatron. */
const KIND = { norm: "LayerNorm1p", activation: "squared-relu", moe: false } as const;

export const nemotron: Family<NemotronDims> = {
  id: "nemotron",
  claims,
  kinds: KINDS,
  pattern: (settings) => String(settings.pattern),
  layers,
  dims,
  roles,
  dialects: [hf, ...megatronDialects, gguf],
  recipes,
  forward,
};

function claims(config: Config): boolean {
  if (config.model_type !== "nemotron-nas")
    return config.model_type === "nemotron" || isGpt(config, KIND) || isGguf(config);
  const message =
    "model_type is nemotron-nas: its blocks differ from each other in width, and some have no attention or no MLP";
  throw new IsologitError(
    "UNSUPPORTED",
    message,
    { file: "config.json" },
    { next: "no command can convert or run this model" },
  );
}
