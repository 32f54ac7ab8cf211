/** Recipes by name, the default first. */
import type { Recipe } from "../family.ts";

export const recipes: readonly Recipe[] = [
  {
    // Without the head: engines do not read a quantized head under the target `Linear`.
    id: "all-linear",
    source:
      "every projection in the layers, without routers, as in the published FP8 checkpoints of Mixtral and Qwen3",
    keepEnds: 0,
    cast: ["attn.*", "mlp.*", "moe.*"],
  },
  {
    id: "experts-only",
    source: "projections of experts, with attention as it is",
    keepEnds: 0,
    cast: ["moe.*"],
  },
];
