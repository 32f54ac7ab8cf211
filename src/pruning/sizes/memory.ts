/** Memory that a model needs for inference: weights, KV cache and Mamba state, each in a precision of its own. */
import { costOfLayers, type LayerCosts } from "./layer-costs.ts";
import type { PrunedShape } from "./shape.ts";

/** Bytes of one number. `nvfp4` has an E4M3 scale for each 16 numbers, `mxfp4` an E8M0 scale for each 32. */
export const BYTES_OF_PRECISION = {
  ...{ f32: 4, bf16: 2, f16: 2, fp8: 1, fp4: 0.5 },
  ...{ nvfp4: 0.5 + 1 / 16, mxfp4: 0.5 + 1 / 32 },
} as const satisfies Readonly<Record<string, number>>;

export type Precision = keyof typeof BYTES_OF_PRECISION;

/** How a model is served. */
export interface Serving {
  readonly weights: Precision;
  readonly kv: Precision;
  /** the Mamba state, and the last inputs of the convolutions */
  readonly state: Precision;
  /** tokens of each sequence */
  readonly context: number;
  /** sequences at a time */
  readonly batch: number;
}

/** Bytes. Activations and the serving software need more. */
export interface ServingMemory {
  readonly weights: number;
  readonly kv: number;
  readonly state: number;
  readonly total: number;
}

/** Bytes that a shape with these costs needs. */
export function servingMemory(costs: LayerCosts, shape: PrunedShape, serving: Serving): ServingMemory {
  const { context, batch } = serving;
  const bytes = (cost: "parameters" | "perToken" | "state", precision: Precision) =>
    (costOfLayers(costs, shape, cost) + (cost === "parameters" ? costs.outside : 0)) *
    BYTES_OF_PRECISION[precision];
  const weights = bytes("parameters", serving.weights);
  const kv = bytes("perToken", serving.kv) * context * batch;
  const state = bytes("state", serving.state) * batch;
  return { weights, kv, state, total: weights + kv + state };
}
