/** Recipes of models with attention and Mamba, by name, the default first. */
import type { Recipe } from "../../family.ts";

export const recipes: readonly Recipe[] = [
  {
    // Without the head: engines do not read a quantized head under the target `Linear`.
    id: "all-linear",
    source: "every projection in the layers, without routers",
    keepEnds: 0,
    cast: ["ssm.*", "attn.*", "mlp.*", "moe.*"],
  },
];
