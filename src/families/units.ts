/** Parts of layers that can be kept or dropped one by one: MLP channels, Mamba heads, query heads, channels of the hidden state. */
export type Unit = "ffn" | "mambaHeads" | "heads" | "hidden";
