/** compressed-tensors, as its library 0.17 and llm-compressor write it: config.json only, scales `weight_scale`. */
import { moduleOf } from "../checkpoint/scales/names.ts";
import { IsologitError } from "../core/errors.ts";
import {
  gridOf,
  type Quantization,
  type QuantizationDialect,
  type QuantizedModel,
  type WeightScales,
} from "../plugins/quantization-dialect.ts";
import { joinedWarnings } from "./fused-modules.ts";
import { raggedWarnings } from "./ragged-blocks.ts";
import { OWN_E5M2 } from "./scheme.ts";

export const compressedTensors: QuantizationDialect = {
  id: "compressed-tensors",
  scaleTensor: (weight, shape, scales) => ({
    name: `${weight}_scale`,
    dtype: scales === "mxfp8" ? "U8" : "F32",
    shape: scales === "tensor" ? [1] : gridOf(shape, scales),
  }),
  takesInputScales: (scales) => scales === "tensor" || scales === "row",
  // on the module of the attention, not on that of the weight
  cacheScale: (weight, stream) => `${moduleOf(moduleOf(weight))}.${stream}_scale`,
  describe,
};

/** `ignore` lists every linear weight without a scale: a reader takes each weight that is not listed for FP8. */
function describe(model: QuantizedModel): Quantization {
  const { kept, dtype, heads } = model;
  const ignore = [...new Set(kept.map(moduleOf))];
  const warnings = [...joinedWarnings(model), ...raggedWarnings(model, "Transformers fails to decode them")];
  if (dtype === "F8_E5M2") {
    // For every reader of compressed-tensors, eight bits of float mean E4M3: under that method the codes would be
    // misread. Under an unknown method Transformers only warns and takes codes for weights; without a method it refuses.
    const warning =
      "no engine reads E5M2 weights: config.json names no quant_method, so that each refuses to load them";
    const weights = { dtype, strategy: "tensor", scale: "<weight>_scale" };
    const config = { format: OWN_E5M2, ignore, weights };
    return { config, list: ignore, files: [], warnings: [warning, ...warnings] };
  }
  if (dtype !== "F8_E4M3") throw new IsologitError("INTERNAL", `${dtype} is not an FP8 type`);
  if (heads.length > 0) {
    warnings.push(
      `${heads.join(", ")}: the head is FP8 and named as a target: Transformers and SGLang read it, vLLM takes its codes for values`,
    );
  }
  const { format, weights, inputs } = schemeFor(model);
  const config = {
    quant_method: "compressed-tensors",
    format,
    quantization_status: "compressed",
    ignore,
    kv_cache_scheme: model.cache ? { ...FP8, strategy: "tensor", dynamic: false } : null,
    config_groups: {
      group_0: {
        targets: ["Linear", ...heads.map(moduleOf)],
        weights: { ...FP8, ...weights },
        input_activations: { ...FP8, ...inputs },
      },
    },
  };
  return { config, list: ignore, files: [], warnings };
}

const FP8 = { num_bits: 8, type: "float", symmetric: true } as const;

/** The fields that depend on which elements share a scale. */
function schemeFor({ scales, activations }: Pick<QuantizedModel, "scales" | "activations">) {
  const inputs =
    activations === "static" ? { strategy: "tensor", dynamic: false } : { strategy: "token", dynamic: true };
  const format = scales === "mxfp8" ? "mxfp8-quantized" : "float-quantized";
  return { format, ...SCHEMES[scales](inputs) };
}

type Fields = Readonly<Record<string, unknown>>;

const SCHEMES: Readonly<Record<WeightScales, (inputs: Fields) => { weights: Fields; inputs: Fields }>> = {
  tensor: (inputs) => ({ weights: { strategy: "tensor", dynamic: false }, inputs }),
  row: (inputs) => ({ weights: { strategy: "channel", dynamic: false }, inputs }),
  block: () => ({
    weights: { strategy: "block", block_structure: [128, 128], dynamic: false },
    inputs: { strategy: "group", group_size: 128, dynamic: true },
  }),
  mxfp8: () => ({
    weights: { ...MX, dynamic: false },
    inputs: { ...MX, dynamic: true },
  }),
};

const MX = { strategy: "group", group_size: 32, scale_dtype: "torch.uint8" } as const;
