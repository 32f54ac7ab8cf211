/**
 * ModelOpt, as `export_hf_checkpoint` writes it: config.json and hf_quant_config.json with the same list. vLLM and SGLang
 * read the former, TensorRT-LLM the latter.
 */
import { MODELOPT_CONFIG } from "../checkpoint/declared-quantization.ts";
import { moduleOf } from "../checkpoint/scales/names.ts";
import type { Shape } from "../core/dtype.ts";
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

export const modelopt: QuantizationDialect = {
  id: "modelopt",
  scaleTensor: (weight, shape, scales) => ({
    name: `${weight}_scale`,
    dtype: scales === "mxfp8" ? "U8" : "F32",
    shape: SHAPES[scales](gridOf(shape, scales)),
  }),
  takesInputScales: (scales) => scales === "tensor",
  cacheScale: (weight, stream) => `${moduleOf(weight)}.${stream}_scale`,
  describe,
};

/** Shape of the scales of a grid. Where one block covers a weight, ModelOpt stores a scale without dimensions. */
const SHAPES: Readonly<Record<WeightScales, (grid: readonly [number, number]) => Shape>> = {
  tensor: () => [],
  row: ([rows]) => [rows],
  block: ([rows, columns]) => (rows === 1 && columns === 1 ? [] : [rows, 1, columns, 1]),
  mxfp8: (grid) => grid,
};

/** Names of the algorithms; that of blocks is in lower case, because ModelOpt writes it so and TensorRT-LLM compares it so. */
const ALGORITHMS: Readonly<Record<WeightScales, string>> = {
  tensor: "FP8",
  row: "FP8_PER_CHANNEL_PER_TOKEN",
  block: "fp8_pb_wo",
  mxfp8: "MXFP8",
};

/** Engines choose ModelOpt's reader by this name, and TensorRT-LLM refuses another; the version says who wrote the folder. */
const PRODUCER = { name: "modelopt", version: "isologit" } as const;

const FP8 = { dynamic: false, num_bits: 8, type: "float" } as const;

function describe(model: QuantizedModel): Quantization {
  const { kept, others, dtype, scales, activations, cache, heads } = model;
  if (dtype !== "F8_E4M3") {
    const next = "use `quantDialect` compressed-tensors";
    throw new IsologitError("PLAN_IMPOSSIBLE", `ModelOpt has no name for ${dtype}`, {}, { next });
  }
  if (scales === "tensor" && activations === "dynamic") {
    const message =
      "ModelOpt's FP8 has static activations: engines multiply by the input_scale of every module, and not every FP8 weight has one";
    const next =
      "compute the scales with `calibrate`, choose `quantScales` row, whose activations are dynamic, or another `quantDialect`";
    throw new IsologitError("PLAN_IMPOSSIBLE", message, {}, { next });
  }
  const ignore = [...new Set([...kept, ...others].map(moduleOf))];
  const algorithm = ALGORITHMS[scales];
  const config = {
    quant_method: "modelopt",
    quant_algo: algorithm,
    ignore,
    // ModelOpt names groups for FP8 alone among these algorithms
    ...(scales === "tensor" && {
      config_groups: { group_0: { input_activations: FP8, weights: FP8, targets: ["Linear"] } },
    }),
    ...(cache && { kv_cache_scheme: FP8 }),
    producer: PRODUCER,
  };
  const quantization = {
    quant_algo: algorithm,
    kv_cache_quant_algo: cache ? "FP8" : null,
    ...(scales === "mxfp8" && { group_size: 32 }),
    exclude_modules: ignore,
  };
  const warnings = [
    "Transformers does not know the method modelopt: it would take codes for weights; vLLM, SGLang and TensorRT-LLM read them",
    ...joinedWarnings(model),
    ...raggedWarnings(model, "vLLM refuses them"),
  ];
  if (heads.length > 0) {
    warnings.push(
      `${heads.join(", ")}: the head is FP8 and not listed: vLLM and new versions of TensorRT-LLM read it, other engines take its codes for values`,
    );
  }
  const files = [{ path: MODELOPT_CONFIG, value: { producer: PRODUCER, quantization } }];
  return { config, list: ignore, files, warnings };
}
