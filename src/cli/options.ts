/** All flags of this version, the groups that several commands share, and the library's options that flags set. */
import { namesOf, type ValueOf } from "./flag.ts";
import { CALIBRATION_FLAGS } from "./flags/calibration.ts";
import {
  CHAT_FLAGS,
  MACHINE_FLAGS,
  PROMPT_FILE_FLAGS,
  PROMPT_FLAGS,
  SAMPLING_FLAGS,
  SCORE_FLAGS,
} from "./flags/inference.ts";
import {
  DESTINATION_FLAGS,
  MEASURE_FLAGS,
  PLACEMENT_FLAGS,
  RECAST_FLAGS,
  RESULT_FLAGS,
  SOURCE_FLAGS,
  TARGET_FLAGS,
} from "./flags/model.ts";
import { FILE_FLAGS, HUB_FLAGS, OUTPUT_FLAGS } from "./flags/output.ts";
import { PRUNING_FLAGS } from "./flags/pruning.ts";
import { SIZE_FLAGS } from "./flags/sizes.ts";
import { DISPATCH_FLAGS, TASK_FLAGS } from "./flags/tasks.ts";
import {
  CERTIFICATE_FLAGS,
  CHECK_FLAGS,
  LIMIT_FLAGS,
  SIGNING_FLAGS,
  TRUST_FLAGS,
} from "./flags/verification.ts";

/** The keys are the names that commander gives to the values. */
export const FLAGS = {
  ...SOURCE_FLAGS,
  ...TARGET_FLAGS,
  ...RECAST_FLAGS,
  ...CALIBRATION_FLAGS,
  ...MEASURE_FLAGS,
  ...PRUNING_FLAGS,
  ...SIZE_FLAGS,
  ...PLACEMENT_FLAGS,
  ...TASK_FLAGS,
  ...DISPATCH_FLAGS,
  ...RESULT_FLAGS,
  ...CHECK_FLAGS,
  ...LIMIT_FLAGS,
  ...CERTIFICATE_FLAGS,
  ...SIGNING_FLAGS,
  ...TRUST_FLAGS,
  ...PROMPT_FLAGS,
  ...PROMPT_FILE_FLAGS,
  ...CHAT_FLAGS,
  ...SAMPLING_FLAGS,
  ...SCORE_FLAGS,
  ...MACHINE_FLAGS,
  ...DESTINATION_FLAGS,
  ...HUB_FLAGS,
  ...OUTPUT_FLAGS,
  ...FILE_FLAGS,
} as const;

export type FlagName = keyof typeof FLAGS;
export const FLAG_NAMES = namesOf(FLAGS);

/** The values that were given. `progress` is true without `--no-progress`. */
export type Flags = { readonly [K in FlagName]?: ValueOf<(typeof FLAGS)[K]> };

/** The library's option that a flag sets, or null. */
type OptionOf<K extends FlagName> = (typeof FLAGS)[K] extends { readonly option: infer O } ? O : K;

/** Flags of a command whose library function has the options `O`. */
export type FlagsOf<O> = { [K in FlagName]: OptionOf<K> extends keyof O | null ? K : never }[FlagName];

/** Options of the library, whichever function they are for. */
export type AnyOptions = { readonly [K in FlagName as OptionOf<K> & string]?: unknown };

export const SOURCE_OPTIONS = namesOf(SOURCE_FLAGS);
export const RECAST = namesOf(RECAST_FLAGS);
export const CALIBRATION = namesOf(CALIBRATION_FLAGS);
export const PRUNING = namesOf(PRUNING_FLAGS);
export const SIZES = namesOf(SIZE_FLAGS);
export const PLACEMENT = namesOf(PLACEMENT_FLAGS);
export const LIMITS = namesOf(LIMIT_FLAGS);
export const SIGNING = namesOf(SIGNING_FLAGS);
export const TRUST = namesOf(TRUST_FLAGS);
export const PROMPT = namesOf(PROMPT_FLAGS);
/** Of commands that run several prompts. */
export const PROMPTS = [...PROMPT, ...namesOf(PROMPT_FILE_FLAGS)] as const;
export const SAMPLING = namesOf(SAMPLING_FLAGS);
export const MACHINE = namesOf(MACHINE_FLAGS);
export const DESTINATION_OPTIONS = namesOf(DESTINATION_FLAGS);
export const DISPATCH = namesOf(DISPATCH_FLAGS);
/** Every command has these. */
export const OUTPUT = namesOf(OUTPUT_FLAGS);
/** Of commands that report progress. */
export const WITH_EVENTS = [...OUTPUT, "events"] as const;
/** Of commands that write reports to files. */
export const WITH_REPORTS = [...WITH_EVENTS, "report"] as const;
