/** Llama 2 and 3, Mistral, Qwen2 and Qwen3: one architecture with switches. */
import type { Family } from "../family.ts";
import { isGpt } from "../parts/gpt/read.ts";
import { dims, type LlamaDims } from "./dims.ts";
import { forward } from "./forward.ts";
import { isGguf } from "./gguf/config.ts";
import { gguf } from "./gguf/dialect.ts";
import { hf } from "./hf/dialect.ts";
import { isModelType } from "./hf/keys.ts";
import { megatronDialects } from "./megatron.ts";
import { recipes } from "./recipes.ts";
import { roles } from "./roles.ts";
import { KINDS, layers } from "./settings.ts";

/** Its models in Megatron. */
const KIND = { norm: "RMSNorm", activation: "swiglu", moe: false } as const;

export const llama: Family<LlamaDims> = {
  id: "llama",
  claims: (config) => isModelType(config.model_type) || isGpt(config, KIND) || isGguf(config),
  kinds: KINDS,
  pattern: (settings) => String(settings.pattern),
  layers,
  dims,
  roles,
  dialects: [hf, ...megatronDialects, gguf],
  recipes,
  forward,
};
