/** Metrics of a report's rungs, with their types. */
import type { RungReport, VerifyReport } from "../../src/verify/report.ts";

type Metrics<R> = Extract<RungReport, { readonly rung: R }>["metrics"];

/** Metrics of `rung`; `key` tells those of two checkpoints from those of a checkpoint and its certificate. */
export function metricsWith<R extends RungReport["rung"], K extends string>(
  { rungs }: Pick<VerifyReport, "rungs">,
  rung: R,
  key: K,
): Extract<Metrics<R>, { readonly [key in K]: unknown }> {
  const metrics = rungs.find((one) => one.rung === rung)?.metrics;
  if (metrics === undefined || !(key in metrics)) throw new Error(`${rung} has no ${key}`);
  return metrics as Extract<Metrics<R>, { readonly [key in K]: unknown }>; // checked above
}
