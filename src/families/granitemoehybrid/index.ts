/** Granite 4.0: blocks of Mamba-2, or attention in a few, then experts with a shared MLP or that MLP alone. */
import type { Family } from "../family.ts";
import { withoutMegatron } from "../parts/hybrid/no-megatron.ts";
import { recipes } from "../parts/hybrid/recipes.ts";
import { dims, type GraniteDims } from "./dims.ts";
import { forward } from "./forward.ts";
import { isGguf } from "./gguf/config.ts";
import { gguf } from "./gguf/dialect.ts";
import { hf } from "./hf/dialect.ts";
import { roles } from "./roles.ts";
import { KINDS, layers } from "./settings.ts";

export const graniteMoeHybrid: Family<GraniteDims> = {
  id: "granitemoehybrid",
  claims: (config) => config.model_type === "granitemoehybrid" || isGguf(config),
  kinds: KINDS,
  pattern: (settings) => String(settings.pattern),
  layers,
  dims,
  roles,
  dialects: [hf, gguf],
  absentDialects: withoutMegatron(
    "its multipliers and for one norm over the whole inner width of a Mamba layer",
  ),
  recipes,
  forward,
};
