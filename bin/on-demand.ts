/** The library for the executable: each function is loaded when it is first called, so that a command starts on its own part. */
import type { Library } from "../src/cli/library.ts";

export const library: Library = {
  plan: later(async () => (await import("../src/convert/convert.ts")).plan),
  convert: later(async () => (await import("../src/convert/convert.ts")).convert),
  recast: later(async () => (await import("../src/convert/convert.ts")).recast),
  verify: later(async () => (await import("../src/verify/verify.ts")).verify),
  logits: later(async () => (await import("../src/verify/logits.ts")).logits),
  generate: later(async () => (await import("../src/generate/generate.ts")).generate),
  inspect: later(async () => (await import("../src/survey/inspect.ts")).inspect),
  scan: later(async () => (await import("../src/survey/scan.ts")).scan),
  check: later(async () => (await import("../src/survey/check.ts")).check),
  diff: later(async () => (await import("../src/survey/diff.ts")).diff),
  doctor: later(async () => (await import("../src/survey/doctor.ts")).doctor),
  formats: later(async () => (await import("../src/survey/formats.ts")).formats),
  download: later(async () => (await import("../src/hub/download.ts")).download),
  upload: later(async () => (await import("../src/hub/upload.ts")).upload),
  cacheLs: later(async () => (await import("../src/hub/cache.ts")).cacheLs),
  cacheVerify: later(async () => (await import("../src/hub/cache.ts")).cacheVerify),
  cacheRm: later(async () => (await import("../src/hub/cache.ts")).cacheRm),
};

function later<A extends unknown[], R>(load: () => Promise<(...args: A) => R | Promise<R>>) {
  return async (...args: A): Promise<R> => (await load())(...args);
}
