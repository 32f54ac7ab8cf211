/// <reference types="node" preserve="true" />
/** The library. Functions carry the names of the commands and return the objects that `--json` prints. */
export type { Format } from "../formats/format.ts";
export { formats as formatList } from "../formats/index.ts";
export {
  type CacheOptions,
  type CacheReport,
  type CacheRmReport,
  type CacheVerifyReport,
  cacheLs,
  cacheRm,
  cacheVerify,
} from "./api/cache.ts";
export { type CheckReport, check } from "./api/check.ts";
export { type ConvertOptions, type ConvertReport, convert } from "./api/convert.ts";
export { type DiffOptions, diff } from "./api/diff.ts";
export { type DoctorReport, doctor } from "./api/doctor.ts";
export { type DownloadOptions, type DownloadReport, download } from "./api/download.ts";
export { type FormatsReport, formats } from "./api/formats.ts";
export { type GenerateOptions, type GenerateReport, generate } from "./api/generate.ts";
export { type InspectReport, inspect } from "./api/inspect.ts";
export { type LogitsOptions, type LogitsReport, logits } from "./api/logits.ts";
export { type MeasurementReport, type PlanFileOptions, type PlanReport, plan } from "./api/plan.ts";
export { loadPlugins } from "./api/plugins.ts";
export { type ImportanceOptions, type ImportanceReport, importance } from "./api/pruning/importance.ts";
export { type PruneOptions, type PruneReport, prune } from "./api/pruning/prune.ts";
export { type ModelSizes, type SizesOptions, sizes } from "./api/pruning/sizes.ts";
export { recast } from "./api/recast.ts";
export { scan } from "./api/scan.ts";
export {
  convertTask,
  type ShareReport,
  type TaskOptions,
  type TaskReport,
} from "./api/tasks/convert-task.ts";
export { dispatchSlurm, type SlurmOptions, type SlurmReport } from "./api/tasks/dispatch.ts";
export { dispatchK8s, type KubernetesOptions, type KubernetesReport } from "./api/tasks/dispatch-k8s.ts";
export { convertPlan, type MergeOptions, merge, type PlannedOptions } from "./api/tasks/merge.ts";
export { type MergeTaskOptions, type MergeTaskReport, mergeTask } from "./api/tasks/merge-task.ts";
export { type UploadOptions, type UploadReport, upload } from "./api/upload.ts";
export { verify } from "./api/verify.ts";
export { type WhoamiOptions, type WhoamiReport, whoami } from "./api/whoami.ts";
export type { VerifyOptions } from "./certificate/options.ts";
export type { CheckOptions, FindingsOptions } from "./check/options.ts";
export { openCheckpoint } from "./checkpoint/open.ts";
export type { RunOptions } from "./checkpoint/options.ts";
export type { MeasureOptions, PlanOptions } from "./convert/options.ts";
export type { PlannedTensor } from "./convert/types.ts";
export type { Checkpoint, Tensor } from "./core/checkpoint.ts";
export { type ErrorCode, IsologitError } from "./core/errors.ts";
export type { Event, EventLine } from "./core/events.ts";
export type { Finding, FindingsReport, Severity } from "./core/finding.ts";
export type { DiffedSidecar, DiffedTensor, DiffReport } from "./diff/report.ts";
export type { Family } from "./families/family.ts";
export { families as familyList } from "./families/index.ts";

export type { Plugin, PluginOptions, PluginsReport } from "./plugins/plugin.ts";
export type { MeasuredShape, ShapeSearch } from "./pruning/search/report.ts";
export type { SearchOptions } from "./sensitivity/options.ts";
export type { RecipeSearch } from "./sensitivity/report.ts";
export type { LossyPart, RecastError, TensorError } from "./verify/bytes/recast-error.ts";
export type { CompareOptions } from "./verify/options.ts";
export type {
  ComparedTensor,
  LayerDrift,
  LogitsMetrics,
  RerunMetrics,
  RungReport,
  TensorDifference,
  Verdict,
  VerifyReport,
} from "./verify/report.ts";
