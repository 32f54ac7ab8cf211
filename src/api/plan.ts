/** `plan`: reports what `convert` would do. No file is written. */

import { calibrateModel } from "../calibrate/calibrate.ts";
import {
  bytesRead,
  bytesWritten,
  knownScales,
  plannedTensors,
  sourceBytes,
} from "../convert/plan-summary.ts";
import { preparePlan } from "../convert/prepare.ts";
import type { DroppedEntries, PaddingRows, PlannedTensor } from "../convert/types.ts";
import type { CalibrationRecord } from "../quantization/calibration.ts";
import type { RecipeSearch } from "../sensitivity/report.ts";
import { type SearchOptions, searchRecipe } from "../sensitivity/search.ts";

export interface CalibrationReport extends CalibrationRecord {
  /** F32 scales of activations by the names of the tensors that hold them */
  readonly scales: Readonly<Record<string, number>>;
}

export interface PlanReport {
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
  /** absent unless `recipe` is "auto" */
  readonly search?: RecipeSearch;
  /** absent without `calibrate` */
  readonly calibration?: CalibrationReport;
  readonly warnings: readonly string[];
  readonly dropped: readonly DroppedEntries[];
  readonly padding: PaddingRows;
}

/**
 * Plans a conversion. No file is written. No weight is read, except by the forward passes of `recipe` "auto" and `calibrate`.
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
  options: SearchOptions = {},
): Promise<PlanReport> {
  const { format, model, planned, search } = await preparePlan(source, destination, options, {
    searchRecipe: (loaded, planWith) => searchRecipe(loaded, options, planWith),
    calibrate: (loaded) => calibrateModel(loaded, options),
  });
  return {
    id: planned.id,
    exact: planned.exact,
    source: { address: source, format: model.checkpoint.format, bytes: sourceBytes(model.checkpoint) },
    destination: { path: destination, format: format.id, bytes: bytesWritten(planned) },
    files: planned.placement.files.map(({ path, size }) => ({
      path: path === "" ? destination : path,
      size,
    })),
    tensors: plannedTensors(planned),
    bytesRead: bytesRead(planned),
    bytesWritten: bytesWritten(planned),
    peakBytes: planned.peakBytes,
    ...(search !== null && { search }),
    ...(planned.calibrated !== null && {
      calibration: { ...planned.calibrated, scales: knownScales(planned) },
    }),
    warnings: planned.warnings,
    dropped: planned.dropped,
    padding: planned.padding,
  };
}
