/**
 * A quantization dialect: how a folder describes its FP8 weights to engines. It fixes the names and shapes of scales, the
 * list of modules that stay as they are, and the JSON files. The dialects of this version are in src/quantization/.
 */
import type { DType, Shape } from "../core/dtype.ts";

/** Those of this version. The first is the default. */
export const QUANT_DIALECTS = ["compressed-tensors", "modelopt", "fp8"] as const;
export type QuantDialect = (typeof QUANT_DIALECTS)[number];

/** Which elements of a weight share a scale: all, those of a row, those of a block of 128 x 128, or 32 in a row (MXFP8). */
export const WEIGHT_SCALES = ["tensor", "row", "block", "mxfp8"] as const;
export type WeightScales = (typeof WEIGHT_SCALES)[number];

/** Rows and columns of a matrix that share a scale. Blocks at its ends may be smaller. */
export function blockOf([rows = 1, columns = 1]: Shape, scales: WeightScales): readonly [number, number] {
  const sides = { tensor: [rows, columns], row: [1, columns], block: [128, 128], mxfp8: [1, 32] } as const;
  return sides[scales];
}

/** Number of scales along the rows and the columns of a matrix. */
export function gridOf(shape: Shape, scales: WeightScales): readonly [number, number] {
  const [height, width] = blockOf(shape, scales);
  const [rows = 1, columns = 1] = shape;
  return [Math.ceil(rows / height), Math.ceil(columns / width)];
}

export interface QuantizationDialect {
  readonly id: string;
  /** @throws PLAN_IMPOSSIBLE if the dialect has no name for such scales */
  scaleTensor(weight: string, shape: Shape, scales: WeightScales): ScaleTensor;
  /**
   * Whether static scales of activations have a place beside such weights. The name of such a scale is that of the module
   * and `.input_scale`, its shape INPUT_SCALE_SHAPE.
   */
  takesInputScales(scales: WeightScales): boolean;
  /**
   * Name of the scale of a KV cache.
   *
   * @param weight its product is what the cache keeps
   * @param stream "k" or "v"
   */
  cacheScale(weight: string, stream: string): string;
  /** @throws PLAN_IMPOSSIBLE if the dialect cannot describe these weights; the message names the reason */
  describe(model: QuantizedModel): Quantization;
}

/** The tensor that holds the scales of a weight. */
interface ScaleTensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
}

/** Ending of the name of a static activation scale, after the name of its module. */
export const INPUT_SCALE = ".input_scale";

/** The weights of a checkpoint of which some are FP8, by the names of their tensors. */
export interface QuantizedModel {
  /** weights that are FP8 */
  readonly cast: readonly string[];
  /** linear weights that are not FP8, under each name by which a library knows them */
  readonly kept: readonly string[];
  /** convolutions and tables of tokens, likewise; they are never FP8 */
  readonly others: readonly string[];
  /** weights that are the head of the model, among `cast` */
  readonly heads: readonly string[];
  /** weights with rows or columns that 128 does not divide, among `cast` */
  readonly ragged: readonly string[];
  /** of the weights that are FP8 */
  readonly dtype: DType;
  readonly scales: WeightScales;
  /** "static": a scale for the activations of every FP8 weight is stored */
  readonly activations: "static" | "dynamic";
  /** scales of an FP8 KV cache are stored, and engines shall use them */
  readonly cache: boolean;
}

export interface Quantization {
  /** the value of `quantization_config` in config.json */
  readonly config: Readonly<Record<string, unknown>>;
  /** the list of modules that are not FP8, as the JSON files contain it */
  readonly list: readonly string[];
  /** further JSON files */
  readonly files: readonly { readonly path: string; readonly value: Readonly<Record<string, unknown>> }[];
  readonly warnings: readonly string[];
}
