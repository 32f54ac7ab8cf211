/**
 * What the command line asks of the library. `main` takes it as a parameter: the executable passes functions that are
 * loaded on demand, tests pass their own.
 */

import type * as library from "../index.ts";
import type { FormatsReport } from "../index.ts";

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
  | "download"
  | "upload"
  | "cacheLs"
  | "cacheVerify"
  | "cacheRm"
> & { formats(): FormatsReport | Promise<FormatsReport> };
