/** What the command line asks of the library. `main` takes it as a parameter, so that tests can pass their own. */
import type * as library from "../index.ts";

export type Library = Pick<
  typeof library,
  | "plan"
  | "convert"
  | "recast"
  | "verify"
  | "logits"
  | "generate"
  | "inspect"
  | "scan"
  | "check"
  | "diff"
  | "doctor"
  | "formats"
  | "download"
  | "upload"
  | "cacheLs"
  | "cacheVerify"
  | "cacheRm"
>;
