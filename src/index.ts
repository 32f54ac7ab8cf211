/** The library. Functions carry the names of the commands and return the objects that `--json` prints. */
export type { Format } from "../formats/format.ts";
export { formats as formatList } from "../formats/index.ts";
export {
  type CacheReport,
  type CacheRmReport,
  type CacheVerifyReport,
  cacheLs,
  cacheRm,
  cacheVerify,
} from "./api/cache.ts";
export { check } from "./api/check.ts";
export { convert, plan, recast } from "./api/convert.ts";
export { diff } from "./api/diff.ts";
export { doctor } from "./api/doctor.ts";
export { type DownloadOptions, type DownloadReport, download } from "./api/download.ts";
export { formats } from "./api/formats.ts";
export { generate } from "./api/generate.ts";
export { inspect } from "./api/inspect.ts";
export { logits } from "./api/logits.ts";
export type {
  CheckOptions,
  CompareOptions,
  ConvertOptions,
  DiffOptions,
  FindingsOptions,
  GenerateOptions,
  LogitsOptions,
  PlanOptions,
  RunOptions,
  VerifyOptions,
} from "./api/options.ts";
export type {
  ConvertReport,
  DiffReport,
  DoctorReport,
  FindingsReport,
  FormatsReport,
  GenerateReport,
  InspectReport,
  LogitsReport,
  PlanReport,
  VerifyReport,
} from "./api/reports.ts";
export { scan } from "./api/scan.ts";
export { type UploadOptions, type UploadReport, upload } from "./api/upload.ts";
export { openCheckpoint } from "./checkpoint/open.ts";
export type { Checkpoint, Tensor } from "./core/checkpoint.ts";
export { type ErrorCode, IsologitError } from "./core/errors.ts";
export type { Event } from "./core/events.ts";
export type { Family } from "./families/family.ts";
export { families as familyList } from "./families/index.ts";
export { verify } from "./verify/verify.ts";
