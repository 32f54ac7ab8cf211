/**
 * The method `fp8` of Transformers, vLLM and SGLang. With block scales all three read `weight_scale_inv`. With one scale a
 * tensor no folder serves all: vLLM and SGLang look for `weight_scale`, Transformers for `weight_scale_inv`. The first is
 * written, because the folder is for serving.
 */
import { moduleOf } from "../checkpoint/scales/names.ts";
import { IsologitError } from "../core/errors.ts";
import {
  gridOf,
  type Quantization,
  type QuantizationDialect,
  type QuantizedModel,
} from "../plugins/quantization-dialect.ts";
import { joinedWarnings } from "./fused-modules.ts";
import { raggedWarnings } from "./ragged-blocks.ts";

export const fp8: QuantizationDialect = {
  id: "fp8",
  scaleTensor(weight, shape, scales) {
    if (scales === "tensor") return { name: `${weight}_scale`, dtype: "F32", shape: [] };
    if (scales === "block")
      return { name: `${weight}_scale_inv`, dtype: "F32", shape: gridOf(shape, scales) };
    const extent = scales === "row" ? "one scale a row" : "MXFP8";
    throw impossible(`the method fp8 has no name for ${extent}: it has one scale a tensor or a block`);
  },
  takesInputScales: (scales) => scales === "tensor",
  cacheScale: (weight, stream) => `${moduleOf(weight)}.${stream}_scale`,
  describe,
};

function describe(model: QuantizedModel): Quantization {
  const { kept, dtype, scales, activations, cache, heads } = model;
  if (dtype !== "F8_E4M3") throw impossible(`the method fp8 has no name for ${dtype}`);
  if (heads.length > 0)
    throw impossible(`no engine of the method fp8 reads an FP8 head: ${heads.join(", ")}`);
  const list = [...new Set(kept.map(moduleOf))];
  const isBlock = scales === "block";
  const config = {
    quant_method: "fp8",
    activation_scheme: activations,
    // Transformers takes an absent size for 128 x 128, so one scale a tensor needs the null
    weight_block_size: isBlock ? [128, 128] : null,
    [isBlock ? "modules_to_not_convert" : "ignored_layers"]: list,
  };
  const warnings = [
    ...(isBlock
      ? []
      : [
          "vLLM and SGLang read one weight_scale a tensor; Transformers looks for weight_scale_inv and would take codes for weights",
        ]),
    ...joinedWarnings(model),
    ...raggedWarnings(model, "Transformers fails to decode them"),
  ];
  if (cache) {
    warnings.push(
      "the method fp8 cannot declare an FP8 KV cache: its scales are written, and engines use them where such a cache is asked for",
    );
  }
  return { config, list, files: [], warnings };
}

function impossible(message: string): IsologitError {
  const next = "use `quantDialect` compressed-tensors or modelopt";
  return new IsologitError("PLAN_IMPOSSIBLE", message, {}, { next });
}
