/** Llama 2 and 3, Mistral, Qwen2 and Qwen3: one architecture with switches. */
import type { Family } from "../family.ts";
import { dims, type LlamaDims } from "./dims.ts";
import { forward } from "./forward.ts";
import { hf } from "./hf/dialect.ts";
import { isModelType } from "./hf/keys.ts";
import { recipes } from "./recipes.ts";
import { roles } from "./roles.ts";
import { KINDS, layers } from "./settings.ts";

export const llama: Family<LlamaDims> = {
  id: "llama",
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
