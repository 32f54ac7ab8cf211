/** Options of `check` and `scan`. */
import type { RunOptions, SourceOptions } from "../checkpoint/options.ts";
import type { StrictOptions } from "../core/finding.ts";
import type { EngineId } from "../quantization/engines/engine.ts";

export interface FindingsOptions extends RunOptions, SourceOptions {
  /** continue after the first damaged file */
  readonly keepGoing?: boolean;
}

export interface CheckOptions extends FindingsOptions, StrictOptions {
  /** read every byte and compare it with the digests that the format stores */
  readonly read?: boolean;
  /** engines that will run the checkpoint: what they cannot load, or load wrongly, is an error; without it all engines count */
  readonly for?: readonly EngineId[];
}
