/**
 * What config.json says of a recast to FP8. It is written as compressed-tensors writes it, with dynamic activations,
 * since a recast calibrates nothing.
 */

import { moduleOf } from "../checkpoint/scales.ts";
import type { DType, TorchDType } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { memberText, withMember, withoutMember } from "./json-edit.ts";

export interface Quantization {
  /** the value of `quantization_config` */
  readonly config: Readonly<Record<string, unknown>>;
  readonly warnings: readonly string[];
}

/**
 * What config.json says of a recast to FP8.
 *
 * @param cast  names of FP8 weights
 * @param kept  names of the linear weights beside them: all that a reader may take for quantised must be listed,
 *              and nothing that has a scale may be
 * @param dtype of the cast weights
 */
export function quantizationConfig(
  cast: readonly string[],
  kept: readonly string[],
  dtype: DType,
): Quantization {
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
    // Eight bits of float mean E4M3 to every reader of compressed-tensors: claiming it would have the codes misread.
    // Of a method that it does not know Transformers only warns, and takes codes for weights; of none it refuses.
    const warning =
      "no engine reads E5M2 weights: config.json names no quant_method, so that each refuses to load them";
    const weights = { dtype, strategy: "tensor", scale: "<weight>_scale" };
    return {
      config: { format: "isologit-fp8-e5m2", ignore, weights },
      warnings: [warning, ...warnings],
    };
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

/** A routed expert's projection, and the module that holds them all. */
const EXPERT = /^(.*\.experts)\.\d+\.\w+\.weight$/;

/** Modules that engines fuse into one, of which a part only is cast. */
function splitGroups(cast: readonly string[], kept: readonly string[]): string[] {
  const groupOf = (name: string) => /^(.*)\.[qkv]_proj\.weight$/.exec(name)?.[1] ?? EXPERT.exec(name)?.[1];
  const whole = new Set(kept.map(groupOf));
  return [...new Set(cast.map(groupOf))].filter(
    (group) => group !== undefined && whole.has(group),
  ) as string[];
}

/** A config.json's text that says how its FP8 is quantised; every other byte stays. @throws CONFIG_INVALID */
export function withQuantization(configText: string, quantization: Quantization["config"]): string {
  return withMember(configText, "quantization_config", quantization);
}

/** The text of a model that is quantised no more. @throws CONFIG_INVALID */
export function withoutQuantization(configText: string): string {
  return withoutMember(configText, "quantization_config");
}

/** The text with its dtype said anew, under the names it already uses. @throws CONFIG_INVALID */
export function withDtype(configText: string, dtype: TorchDType): string {
  return ["torch_dtype", "dtype"].reduce(
    (text, key) => (memberText(text, key)?.startsWith('"') ? withMember(text, key, dtype) : text),
    configText,
  );
}
