/**
 * A kind of quantization: how config.json describes FP8 weights. compressed-tensors is the kind that is written; another
 * one is a file beside it with the same interface.
 */
import type { DType, TorchDType } from "../core/dtype.ts";
import { memberText, withMember, withoutMember } from "./json-edit.ts";

export interface QuantizationKind {
  /** @throws INTERNAL for a dtype that is not FP8 */
  describe(weights: RecastWeights): Quantization;
}

/** Names of weights after a recast to FP8. */
export interface RecastWeights {
  /** weights that are FP8 */
  readonly cast: readonly string[];
  /** linear weights that are not FP8 */
  readonly kept: readonly string[];
  /** of the weights that are FP8 */
  readonly dtype: DType;
}

export interface Quantization {
  /** the value of `quantization_config` */
  readonly config: Readonly<Record<string, unknown>>;
  readonly warnings: readonly string[];
}

const KEY = "quantization_config";

/** A config.json's text with this `quantization_config`; every other byte stays. @throws CONFIG_INVALID */
export function withQuantization(configText: string, quantization: Quantization["config"]): string {
  return withMember(configText, KEY, quantization);
}

/** A config.json's text without `quantization_config`. @throws CONFIG_INVALID */
export function withoutQuantization(configText: string): string {
  return withoutMember(configText, KEY);
}

/** A config.json's text with another dtype, under each of the two keys that the text has. @throws CONFIG_INVALID */
export function withDtype(configText: string, dtype: TorchDType): string {
  return ["torch_dtype", "dtype"].reduce(
    (text, key) => (memberText(text, key)?.startsWith('"') ? withMember(text, key, dtype) : text),
    configText,
  );
}
