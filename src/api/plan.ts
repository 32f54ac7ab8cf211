/** `plan`: reports what `convert` would do. */

import { calibrateModel } from "../calibrate/calibrate.ts";
import { type LoadedModel, matchModel, readScaleValues } from "../checkpoint/load.ts";
import type { FileKindReport } from "../convert/dtypes/file-kind.ts";
import type { MeasureOptions, PlanOptions } from "../convert/options.ts";
import {
  bytesRead,
  bytesWritten,
  knownScales,
  plannedTensors,
  sourceBytes,
} from "../convert/plan-summary.ts";
import { preparePlan } from "../convert/prepare.ts";
import { readablePlan } from "../convert/tensors/planned-store.ts";
import type { DroppedEntries, PaddingRows, Plan, PlannedTensor } from "../convert/types.ts";
import { ignoreEvents } from "../core/events.ts";
import { writeWhole } from "../io/whole-file.ts";
import { type PluginsReport, pluginsReport } from "../plugins/plugin.ts";
import type { CalibrationRecord } from "../quantization/calibration.ts";
import type { SearchOptions } from "../sensitivity/options.ts";
import type { RecipeSearch } from "../sensitivity/report.ts";
import { searchRecipe } from "../sensitivity/search.ts";
import { bytesToMeasure, measureRecasts } from "../verify/bytes/bytes.ts";
import type { RecastError } from "../verify/bytes/recast-error.ts";
import type { ComparedTensor, TensorDifference } from "../verify/report.ts";
import { comparedTensors, tensorDifferences } from "../verify/verify.ts";
import { WorkerPool } from "../workers/pool.ts";
import { type PlannedRun, plannedRun } from "./planned/plan-file.ts";

export interface CalibrationReport extends CalibrationRecord {
  /** F32 scales of activations by the names of the tensors that hold them */
  readonly scales: Readonly<Record<string, number>>;
}

/** What `verify` will measure after the conversion. */
export interface MeasurementReport {
  /** the error of all recast tensors together; null: no tensor is recast */
  readonly error: RecastError | null;
  /** the recast tensors, in order of execution, with their errors */
  readonly tensors: readonly ComparedTensor[];
  /** what `verify` will call different: scales with which a tensor loses its values */
  readonly differences: readonly TensorDifference[];
  /** what `verify` will remark about the recast, such as rows that become 0 */
  readonly findings: readonly string[];
}

export interface PlanReport extends PluginsReport {
  /** SHA-256 of all inputs of the plan; equal ids give equal bytes */
  readonly id: string;
  /** no tensor is recast */
  readonly exact: boolean;
  readonly source: { readonly address: string; readonly format: string; readonly bytes: number };
  readonly destination: { readonly path: string; readonly format: string; readonly bytes: number };
  readonly files: readonly { readonly path: string; readonly size: number }[];
  readonly tensors: readonly PlannedTensor[];
  readonly bytesRead: number;
  readonly bytesWritten: number;
  /** memory for buffers */
  readonly peakBytes: number;
  /** absent unless `dtype` is a kind of GGUF files */
  readonly fileKind?: FileKindReport;
  /** absent unless `recipe` is "auto" */
  readonly search?: RecipeSearch;
  /** absent without `calibrate` */
  readonly calibration?: CalibrationReport;
  /** absent without `measure` */
  readonly measurement?: MeasurementReport;
  /** what other processes need to run the plan: `convert` with `planFile`, its tasks, and `merge` */
  readonly run: PlannedRun;
  readonly warnings: readonly string[];
  readonly dropped: readonly DroppedEntries[];
  readonly padding: PaddingRows;
}

export interface PlanFileOptions {
  /** path of a file to write the report to, for `convert` and `merge` */
  readonly out?: string;
}

/**
 * Plans a conversion. No file is written, except the plan with `out`. Weights are read only by the forward passes of `recipe` "auto" and `calibrate`, and
 * for `measure`.
 *
 * @param source path or `hf://` address of a checkpoint
 * @param destination path that `convert` would write
 * @param options format, dtype and layout of the destination
 * @returns files, tensors, sizes in bytes and warnings of the conversion
 * @throws the errors of opening and matching a checkpoint, and USAGE for options that contradict each other
 * @example
 * const { exact, bytesWritten } = await plan("./nemotron-h-8b", "model.isologit");
 */
export async function plan(
  source: string,
  destination: string,
  options: SearchOptions & MeasureOptions & PlanFileOptions = {},
): Promise<PlanReport> {
  const { measure = false } = options;
  const { format, model, planned, search, chosen } = await preparePlan(source, destination, options, {
    searchRecipe: (loaded, planWith, writer) => searchRecipe(loaded, options, planWith, writer),
    calibrate: (loaded) => calibrateModel(loaded, options),
    keep: measure,
  });
  const measurement = measure ? await measurePlan(model, planned, options) : null;
  const report: PlanReport = {
    id: planned.id,
    exact: planned.exact,
    source: { address: source, format: model.checkpoint.format, bytes: sourceBytes(model.checkpoint) },
    destination: { path: destination, format: format.id, bytes: bytesWritten(planned) },
    files: planned.placement.files.map(({ path, size }) => ({
      path: path === "" ? destination : path,
      size,
    })),
    tensors: plannedTensors(planned, model.tensors),
    bytesRead: bytesRead(planned),
    bytesWritten: bytesWritten(planned),
    peakBytes: planned.pool.bytes,
    ...(planned.fileKind !== null && { fileKind: planned.fileKind }),
    ...(search !== null && { search }),
    ...pluginsReport(options),
    ...(planned.calibrated !== null && {
      calibration: { ...planned.calibrated, scales: knownScales(planned) },
    }),
    ...(measurement !== null && { measurement }),
    run: await plannedRun(source, destination, { ...options, to: format.id }, planned, chosen),
    warnings: planned.warnings,
    dropped: planned.dropped,
    padding: planned.padding,
  };
  // whole at once: tasks may be about to read it
  if (options.out !== undefined) await writeWhole(options.out, `${JSON.stringify(report, null, 2)}\n`);
  return report;
}

/** Compares the source with the planned destination, which is cast while it is read. */
async function measurePlan(
  model: LoadedModel,
  planned: Plan,
  options: PlanOptions,
): Promise<MeasurementReport> {
  const { allowOverflow = false, signal, watch = ignoreEvents } = options;
  await using readable = await readablePlan({ plan: planned, allowOverflow, signal });
  const destination = matchModel(readable.checkpoint, options);
  watch({ type: "phase", phase: "measure", totalBytes: bytesToMeasure(model, destination) });
  await using pool = new WorkerPool(planned.pool);
  const [a, b] = [await readScaleValues(model), await readScaleValues(destination)];
  const measured = await measureRecasts({ a, b, pool, strictScales: true, phase: "measure", watch, signal });
  return {
    error: measured.error,
    tensors: comparedTensors(a, b, measured).filter(({ error }) => error !== undefined),
    differences: tensorDifferences(measured.differences),
    findings: measured.findings.map(({ message }) => message),
  };
}
