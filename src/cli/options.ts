/** All flags of this version, and the groups of flags that several commands share. */
import type { ValueOf } from "./flag.ts";
import { INFERENCE_FLAGS } from "./flags/inference.ts";
import { MODEL_FLAGS } from "./flags/model.ts";
import { OUTPUT_FLAGS } from "./flags/output.ts";
import { VERIFICATION_FLAGS } from "./flags/verification.ts";

/** The keys are the names that commander gives to the values. */
export const FLAGS = { ...MODEL_FLAGS, ...VERIFICATION_FLAGS, ...INFERENCE_FLAGS, ...OUTPUT_FLAGS } as const;

export type FlagName = keyof typeof FLAGS;

/** The values that were given. `progress` is true without `--no-progress`. */
export type Flags = { readonly [K in FlagName]?: ValueOf<(typeof FLAGS)[K]> };

export const TALK = ["json", "quiet", "verbose", "progress"] as const satisfies readonly FlagName[];
export const WATCHED = [...TALK, "events"] as const satisfies readonly FlagName[];
export const REPORTED = [...WATCHED, "report"] as const satisfies readonly FlagName[];
export const TELLING = ["vocabSize", "like", "iteration"] as const satisfies readonly FlagName[];
export const MACHINE = ["backend", "device", "threads", "memory"] as const satisfies readonly FlagName[];
export const PROMPT = ["tokens", "ids", "idsFile", "prompt", "seed"] as const satisfies readonly FlagName[];
export const LIMITS = ["reference", "tolerance", "kl", "top1"] as const satisfies readonly FlagName[];
export const RECAST = [
  "dtype",
  "recipe",
  "keepEnds",
  "quantDialect",
  "allowOverflow",
  "keepExtra",
] as const satisfies readonly FlagName[];
export const PLACING = ["maxShardSize", "align", "tp", "pp"] as const satisfies readonly FlagName[];
