/** TODO */
import type { RunOptions, SourceOptions } from "../checkpoint/options.ts";
import type { StrictOptions } from "../core/finding.ts";

export interface FindingsOptions extends RunOptions, SourceOptions {
  /** look at everything, instead of stopping at the first damaged file */
  readonly keepGoing?: boolean;
}

export interface CheckOptions extends FindingsOptions, StrictOptions {
  /** read every byte, and hold it to whatever digests the format keeps */
  readonly read?: boolean;
}
