/** Widths of a Nemotron model. */
import type { AttentionDims } from "../parts/attention/dims.ts";
import type { MlpDims } from "../parts/mlp/dims.ts";
import { blockWidths } from "../parts/widths.ts";

export type NemotronDims = AttentionDims & MlpDims;

export const dims = blockWidths;
