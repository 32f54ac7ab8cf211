/** Errors of recasts as text: the numbers of one tensor or of all, and which tensors lost most. */
import { formatMeasure, formatPercent, formatQuantity } from "../core/figures.ts";
import type { ComparedTensor, ConvertReport, LossyPart, RecastError, TensorError } from "../index.ts";

/** A recast tensor, with its error. */
export interface MeasuredTensor extends ComparedTensor {
  readonly error: TensorError;
}

/** What became of the values in a conversion. */
export function valuesText({ exact, verification }: Pick<ConvertReport, "exact" | "verification">): string {
  if (exact) return "exact: every bit is unchanged";
  const isSame = verification?.rungs.some(({ rung, metrics }) => {
    return rung === "bytes" && "error" in metrics && metrics.error?.relL2 === 0;
  });
  return isSame ? "recast: no value changed" : "recast: each value is rounded once to its new dtype";
}

export function errorTexts({ relL2, clipped, flushed, notNearest }: RecastError): readonly string[] {
  return [
    `relative L2 ${formatMeasure(relL2)}`,
    `${formatPercent(clipped)} clipped`,
    `${formatPercent(flushed)} became 0`,
    `${formatPercent(notNearest)} not nearest`,
  ];
}

/** `dt: 8 of 8 rows` */
export function partTexts({ parts }: TensorError): readonly string[] {
  return parts.map(({ part, lossyRows, rows }) => {
    const name = part === null ? "" : `${part}: `;
    return `${name}${lossyRows} of ${formatQuantity(rows, "row")}`;
  });
}

/** The recast tensors. Those that lost most come first: by their whole error, by what vanished, or by the error of a part. */
export function measuredTensors(tensors: readonly ComparedTensor[]): readonly MeasuredTensor[] {
  const measured = tensors.filter((tensor): tensor is MeasuredTensor => tensor.error !== undefined);
  const ranked = measured.map((tensor) => ({ tensor, rank: rankOf(tensor.error) }));
  return ranked.sort((a, b) => b.rank - a.rank).map(({ tensor }) => tensor);
}

function rankOf({ relL2, clipped, flushed, parts }: TensorError): number {
  return Math.max(relL2, clipped, flushed, ...parts.map((part: LossyPart) => part.relL2));
}
