/** Options that decide what a conversion writes. */
import type { RunOptions, SourceOptions } from "../checkpoint/options.ts";
import type { RecastTarget } from "../core/dtype.ts";

export interface PlanOptions extends RunOptions, SourceOptions {
  readonly to?: string;
  readonly dtype?: RecastTarget;
  /** a recipe's name, or the path of a recipe file */
  readonly recipe?: string;
  readonly keepEnds?: number;
  readonly maxShardBytes?: number;
  /** packed: tensors start at multiples of this many bytes; 256 (default) or 4096 */
  readonly alignment?: number;
  /** ranks that the tensors are cut for; for distributed checkpoints `tp` only sets the padding; default 1 */
  readonly tp?: number;
  readonly pp?: number;
  /** files beside the model that are no part of it, such as optimizer states, travel with it */
  readonly keepExtra?: boolean;
  /** BF16 or F32 values that F16 cannot hold become infinities instead of an error */
  readonly allowOverflow?: boolean;
}
