/** The quantization dialects that are written, by name. */
import { compressedTensors } from "./compressed-tensors.ts";
import type { QuantDialect, QuantizationDialect } from "./dialect.ts";
import { fp8 } from "./fp8.ts";
import { modelopt } from "./modelopt.ts";

export const quantizationDialects: Readonly<Record<QuantDialect, QuantizationDialect>> = {
  "compressed-tensors": compressedTensors,
  modelopt,
  fp8,
};
