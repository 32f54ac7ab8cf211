/** The library for the executable: each function is loaded at its first call, so that a command starts fast. */
import type { Library } from "../src/cli/library.ts";
import type { VerifyOptions } from "../src/index.ts";

export const library: Library = {
  plan: later(async () => (await import("../src/api/plan.ts")).plan),
  convert: later(async () => (await import("../src/api/convert.ts")).convert),
  convertPlan: later(async () => (await import("../src/api/tasks/merge.ts")).convertPlan),
  convertTask: later(async () => (await import("../src/api/tasks/convert-task.ts")).convertTask),
  merge: later(async () => (await import("../src/api/tasks/merge.ts")).merge),
  mergeTask: later(async () => (await import("../src/api/tasks/merge-task.ts")).mergeTask),
  dispatchSlurm: later(async () => (await import("../src/api/tasks/dispatch.ts")).dispatchSlurm),
  dispatchK8s: later(async () => (await import("../src/api/tasks/dispatch-k8s.ts")).dispatchK8s),
  recast: later(async () => (await import("../src/api/recast.ts")).recast),
  prune: later(async () => (await import("../src/api/pruning/prune.ts")).prune),
  sizes: later(async () => (await import("../src/api/pruning/sizes.ts")).sizes),
  verify: async (a: string, b?: string, options?: VerifyOptions) =>
    (await import("../src/api/verify.ts")).verify(a, b, options),
  importance: later(async () => (await import("../src/api/pruning/importance.ts")).importance),
  logits: later(async () => (await import("../src/api/logits.ts")).logits),
  generate: later(async () => (await import("../src/api/generate.ts")).generate),
  inspect: later(async () => (await import("../src/api/inspect.ts")).inspect),
  scan: later(async () => (await import("../src/api/scan.ts")).scan),
  check: later(async () => (await import("../src/api/check.ts")).check),
  diff: later(async () => (await import("../src/api/diff.ts")).diff),
  doctor: later(async () => (await import("../src/api/doctor.ts")).doctor),
  formats: later(async () => (await import("../src/api/formats.ts")).formats),
  loadPlugins: later(async () => (await import("../src/api/plugins.ts")).loadPlugins),
  download: later(async () => (await import("../src/api/download.ts")).download),
  upload: later(async () => (await import("../src/api/upload.ts")).upload),
  whoami: later(async () => (await import("../src/api/whoami.ts")).whoami),
  cacheLs: later(async () => (await import("../src/api/cache.ts")).cacheLs),
  cacheVerify: later(async () => (await import("../src/api/cache.ts")).cacheVerify),
  cacheRm: later(async () => (await import("../src/api/cache.ts")).cacheRm),
};

function later<A extends unknown[], R>(load: () => Promise<(...args: A) => R | Promise<R>>) {
  return async (...args: A): Promise<R> => (await load())(...args);
}
