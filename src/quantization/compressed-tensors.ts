/**
 * How config.json describes a recast to FP8: as compressed-tensors does, with dynamic activations, because a recast
 * calibrates nothing.
 */
import { moduleOf } from "../checkpoint/scales/names.ts";
import { IsologitError } from "../core/errors.ts";
import type { Quantization, QuantizationKind, RecastWeights } from "./kind.ts";
import { OWN_E5M2 } from "./scheme.ts";

export const compressedTensors: QuantizationKind = { describe };

/** `ignore` lists every linear weight without a scale: a reader takes each weight that is not listed for FP8. */
function describe({ cast, kept, dtype }: RecastWeights): Quantization {
  const ignore = [...new Set(kept.map(moduleOf))];
  const warnings = splitGroups(cast, kept).map(
    (group) => `${group}: some of it is FP8 and some is not; vLLM fuses these and will refuse to load them`,
  );
  if (cast.some((name) => EXPERT.test(name))) {
    warnings.push(
      "routed experts are FP8: vLLM reads them, Transformers 5 takes their codes without the scales",
    );
  }
  if (dtype === "F8_E5M2") {
    // For every reader of compressed-tensors, eight bits of float mean E4M3: under that method the codes would be
    // misread. Under an unknown method Transformers only warns and takes codes for weights; without a method it refuses.
    const warning =
      "no engine reads E5M2 weights: config.json names no quant_method, so that each refuses to load them";
    const weights = { dtype, strategy: "tensor", scale: "<weight>_scale" };
    return { config: { format: OWN_E5M2, ignore, weights }, warnings: [warning, ...warnings] };
  }
  if (dtype !== "F8_E4M3") throw new IsologitError("INTERNAL", `${dtype} is not an FP8 type`);
  const fp8 = { num_bits: 8, type: "float", symmetric: true };
  const config = {
    quant_method: "compressed-tensors",
    format: "float-quantized",
    quantization_status: "compressed",
    ignore,
    kv_cache_scheme: null,
    config_groups: {
      group_0: {
        targets: ["Linear"],
        weights: { ...fp8, strategy: "tensor", dynamic: false },
        input_activations: { ...fp8, strategy: "token", dynamic: true },
      },
    },
  };
  return { config, warnings };
}

/** The projection of a routed expert; the group is the module that holds all experts. */
const EXPERT = /^(.*\.experts)\.\d+\.\w+\.weight$/;

/** Modules that engines fuse into one module, where only a part is cast. */
function splitGroups(cast: readonly string[], kept: readonly string[]): readonly string[] {
  const groupOf = (name: string) => /^(.*)\.[qkv]_proj\.weight$/.exec(name)?.[1] ?? EXPERT.exec(name)?.[1];
  const keptGroups = new Set(kept.map(groupOf));
  return [...new Set(cast.map(groupOf))].flatMap((group) =>
    group !== undefined && keptGroups.has(group) ? [group] : [],
  );
}
