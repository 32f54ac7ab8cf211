/** `plan`: what `convert` would do. Nothing is written. */

import type { PlanOptions } from "../convert/options.ts";
import { bytesRead, bytesWritten, plannedTensors } from "../convert/plan.ts";
import { preparePlan } from "../convert/prepare.ts";
import type { DroppedEntries, PaddingRows, PlannedTensor } from "../convert/types.ts";
import { sourceBytes } from "./convert.ts";

/** `plan`: what `convert` would do. */
export interface PlanReport {
  readonly id: string;
  readonly exact: boolean;
  readonly source: { readonly address: string; readonly format: string; readonly bytes: number };
  readonly destination: { readonly path: string; readonly format: string; readonly bytes: number };
  readonly files: readonly { readonly path: string; readonly size: number }[];
  readonly tensors: readonly PlannedTensor[];
  readonly bytesRead: number;
  readonly bytesWritten: number;
  readonly peakBytes: number;
  readonly warnings: readonly string[];
  readonly dropped: readonly DroppedEntries[];
  readonly padding: PaddingRows;
}

/** What `convert` would do. Nothing is written. */
export async function plan(
  source: string,
  destination: string,
  options: PlanOptions = {},
): Promise<PlanReport> {
  const { format, model, planned } = await preparePlan(source, destination, options);
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
    warnings: planned.warnings,
    dropped: planned.dropped,
    padding: planned.padding,
  };
}
