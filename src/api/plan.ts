/** `plan`: reports what `convert` would do. No file is written. */

import { calibrateModel } from "../calibrate/calibrate.ts";
import type { PlanOptions } from "../convert/options.ts";
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
  /** absent without `calibrate` */
  readonly calibration?: CalibrationReport;
  readonly warnings: readonly string[];
  readonly dropped: readonly DroppedEntries[];
  readonly padding: PaddingRows;
}

/**
 * Plans a conversion. No file is written. No weight is read, except by the forward pass of `calibrate`.
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
  options: PlanOptions = {},
): Promise<PlanReport> {
  const { format, model, planned } = await preparePlan(source, destination, options, {
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
    ...(planned.calibrated !== null && {
      calibration: { ...planned.calibrated, scales: knownScales(planned) },
    }),
    warnings: planned.warnings,
    dropped: planned.dropped,
    padding: planned.padding,
  };
}
