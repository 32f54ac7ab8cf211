/** Settings of a Bamba model, and its layers. */
import { blockLayers } from "../parts/blocks.ts";

export const KINDS = ["mamba", "attention", "mlp"] as const;

/** A block is `M-`, or `*-` with attention in place of Mamba. */
const LETTERS = { M: "mamba", "*": "attention", "-": "mlp" } as const;

export const layers = blockLayers(LETTERS);
