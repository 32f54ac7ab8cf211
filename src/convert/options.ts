/** Options that decide what a conversion writes. */
import type { RunOptions, SourceOptions } from "../checkpoint/options.ts";
import type { FnuzHandling, RecastTarget } from "../core/dtype.ts";
import type { WeightScales } from "../plugins/quantization-dialect.ts";
import type { CalibrationOptions } from "../quantization/calibration.ts";

export interface MeasureOptions {
  /** read the weights that are recast, and compute the error of each recast; default false */
  readonly measure?: boolean;
}

export interface PlanOptions extends RunOptions, SourceOptions, CalibrationOptions {
  readonly to?: string;
  readonly dtype?: RecastTarget;
  /** name of a recipe, path of a recipe file, or "auto": the recipe that forward passes find */
  readonly recipe?: string;
  /** for `recipe` "auto": largest mean number of bits of a weight, with its share of the scales */
  readonly bits?: number;
  readonly keepEnds?: number;
  /**
   * how a Hugging Face folder describes its FP8 weights: "compressed-tensors" (the default for weights that are cast),
   * "modelopt", "fp8", or the id of a dialect of a plug-in
   */
  readonly quantDialect?: string;
  /** which elements of a weight that is cast to FP8 share a scale; default "tensor" */
  readonly quantScales?: WeightScales;
  /** what becomes of FP8 weights of AMD's MI300 that are not cast; such weights are refused without it */
  readonly fnuz?: FnuzHandling;
  /** give weights that engines join into one tensor, such as q, k and v of a layer, or gate and up of an expert, one FP8 scale */
  readonly fuseScales?: boolean;
  readonly maxShardBytes?: number;
  /** packed: tensors start at multiples of this many bytes; 256 (default) or 4096 */
  readonly alignment?: number;
  /** number of ranks that the tensors are cut for; for distributed checkpoints `tp` only sets the padding; default 1 */
  readonly tp?: number;
  readonly pp?: number;
  /** also copy files beside the model that do not belong to it, such as optimizer states */
  readonly keepExtra?: boolean;
  /** BF16 or F32 values that F16 cannot hold become infinities instead of an error */
  readonly allowOverflow?: boolean;
}
