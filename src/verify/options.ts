/** Options of the comparison of two checkpoints. */
import type { RunOptions, SourceOptions } from "../checkpoint/options.ts";
import type { StrictOptions } from "../core/finding.ts";
import type { PromptOptions } from "../inference/prompts.ts";
import type { LimitOptions } from "./limits.ts";

/** Option for logits that other software recorded; the source is compared with them. */
export interface ReferenceOptions {
  /** a safetensors file; see docs/recording-references.md */
  readonly reference?: string;
}

export type VerifyLevel = "logits" | "bytes" | "off";

/** Options of `verify A B`. */
export interface CompareOptions
  extends RunOptions,
    SourceOptions,
    PromptOptions,
    LimitOptions,
    ReferenceOptions,
    StrictOptions {
  readonly verify?: Exclude<VerifyLevel, "off">;
}
