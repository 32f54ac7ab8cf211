/** A model with one scale a tensor and dynamic activations, for tests of the quantization dialects. */
import type { QuantizedModel } from "../../src/plugins/quantization-dialect.ts";

export const QUANTIZED: QuantizedModel = {
  cast: [],
  kept: [],
  others: [],
  heads: [],
  ragged: [],
  dtype: "F8_E4M3",
  scales: "tensor",
  activations: "dynamic",
  cache: false,
};
