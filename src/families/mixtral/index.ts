/** Mixtral and Qwen3-MoE: gated experts that a softmax router chooses. */
import type { Family } from "../family.ts";
import { isGpt } from "../parts/gpt/read.ts";
import { dims, type MixtralDims } from "./dims.ts";
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
const KIND = { norm: "RMSNorm", activation: "swiglu", moe: true } as const;

export const mixtral: Family<MixtralDims> = {
  id: "mixtral",
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
