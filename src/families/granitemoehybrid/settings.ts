/** Settings of a Granite 4.0 model, and its layers. */
import { blockLayers } from "../parts/blocks.ts";

export const KINDS = ["mamba", "attention", "mlp", "moe"] as const;

/** A block is Mamba or attention (`M` or `*`), then experts with a shared MLP, or in dense models the MLP alone (`E` or `-`). */
export const layers = blockLayers({ M: "mamba", "*": "attention", "-": "mlp", E: "moe" });
