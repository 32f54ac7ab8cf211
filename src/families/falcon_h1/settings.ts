/** Settings of a Falcon-H1 model, and its layers. */
import { blockLayers } from "../parts/blocks.ts";

/** A hybrid layer has both mixers, attention and Mamba. */
export const KINDS = ["hybrid", "mlp"] as const;

/** A block is `H-`. */
export const layers = blockLayers({ H: "hybrid", "-": "mlp" });
