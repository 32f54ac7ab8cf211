/** The library. Functions carry the names of the commands and return the objects that `--json` prints. */
export type { Format } from "../formats/define.ts";
export { formats as formatList } from "../formats/index.ts";
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
export { convert, plan, recast } from "./convert/convert.ts";
export type { Checkpoint, Tensor } from "./core/checkpoint.ts";
export { type ErrorCode, IsologitError } from "./core/errors.ts";
export type { Event } from "./core/events.ts";
export type { Family } from "./families/define.ts";
export { families as familyList } from "./families/index.ts";
export { generate } from "./generate/generate.ts";
export {
  type CacheReport,
  type CacheRmReport,
  type CacheVerifyReport,
  cacheLs,
  cacheRm,
  cacheVerify,
} from "./hub/cache.ts";
export { type DownloadOptions, type DownloadReport, download } from "./hub/download.ts";
export { type UploadOptions, type UploadReport, upload } from "./hub/upload.ts";
export { openCheckpoint } from "./open.ts";
export { check } from "./survey/check.ts";
export { diff } from "./survey/diff.ts";
export { doctor } from "./survey/doctor.ts";
export { formats } from "./survey/formats.ts";
export { inspect } from "./survey/inspect.ts";
export { scan } from "./survey/scan.ts";
export { logits } from "./verify/logits.ts";
export { verify } from "./verify/verify.ts";
