/** Bamba: blocks of Mamba-2, or attention in a few, and a gated MLP. */
import type { Family } from "../family.ts";
import { type HybridDims, hybridDims } from "../parts/hybrid/dims.ts";
import { withoutMegatron } from "../parts/hybrid/no-megatron.ts";
import { recipes } from "../parts/hybrid/recipes.ts";
import { forward } from "./forward.ts";
import { isGguf } from "./gguf/config.ts";
import { gguf, wholeHeadPairs } from "./gguf/dialect.ts";
import { hf } from "./hf/dialect.ts";
import { roles } from "./roles.ts";
import { KINDS, layers } from "./settings.ts";

export const bamba: Family<HybridDims> = {
  id: "bamba",
  claims: (config) => config.model_type === "bamba" || isGguf(config),
  kinds: KINDS,
  pattern: (settings) => String(settings.pattern),
  layers,
  dims: hybridDims,
  roles,
  dialects: [hf, gguf, wholeHeadPairs],
  absentDialects: withoutMegatron("one norm over the whole inner width of a Mamba layer"),
  recipes,
  forward,
};
