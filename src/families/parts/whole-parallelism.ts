/** The parallelism of dialects that store whole models. */
import type { Parallelism, Structure } from "../structure.ts";

/** The model is not divided, and no row is padding. */
export function wholeParallelism({ dims, layers }: Structure): Parallelism {
  const main = layers.filter(({ stack }) => stack === "main").length;
  return { tp: 1, ep: 1, expertTp: 1, stages: [{ main, mtp: layers.length - main }], rows: dims.vocab };
}
