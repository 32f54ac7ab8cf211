/**
 * The library functions that the commands call. `main` takes them as a parameter: the executable passes functions that
 * are loaded on first use, tests pass their own.
 */
import type * as library from "../index.ts";
import type { FormatsReport, PluginOptions } from "../index.ts";

export type Library = Pick<
  typeof library,
  | "plan"
  | "convert"
  | "convertPlan"
  | "convertTask"
  | "merge"
  | "mergeTask"
  | "dispatchSlurm"
  | "dispatchK8s"
  | "recast"
  | "prune"
  | "sizes"
  | "verify"
  | "logits"
  | "importance"
  | "generate"
  | "inspect"
  | "scan"
  | "check"
  | "diff"
  | "doctor"
  | "download"
  | "upload"
  | "whoami"
  | "cacheLs"
  | "cacheVerify"
  | "cacheRm"
  | "loadPlugins"
> & { formats(options?: PluginOptions): FormatsReport | Promise<FormatsReport> };
