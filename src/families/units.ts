/** Parts of layers that can be kept or dropped one by one: MLP channels, Mamba heads, query heads, channels of the hidden state. */
export const UNITS = ["ffn", "mambaHeads", "heads", "hidden"] as const;
export type Unit = (typeof UNITS)[number];
