/** Mixtral and Qwen3-MoE: gated experts that a softmax router chooses. */
import type { Family } from "../family.ts";
import { dims, type MixtralDims } from "./dims.ts";
import { forward } from "./forward.ts";
import { hf } from "./hf/dialect.ts";
import { isModelType } from "./hf/keys.ts";
import { recipes } from "./recipes.ts";
import { roles } from "./roles.ts";
import { KINDS, layers } from "./settings.ts";

export const mixtral: Family<MixtralDims> = {
  id: "mixtral",
  claims: ({ model_type }) => isModelType(model_type),
  kinds: KINDS,
  pattern: (settings) => String(settings.pattern),
  layers,
  dims,
  roles,
  dialects: [hf],
  recipes,
  forward,
};
