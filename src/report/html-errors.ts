/** The section of a recast: how the errors of its tensors are distributed, and which tensors lost most. */
import { formatCount, formatMeasure, formatPercent, formatQuantity } from "../core/figures.ts";
import type { ComparedTensor, RungReport } from "../index.ts";
import { chartOf } from "./chart.ts";
import { htmlTable, numberCell } from "./html-tables.ts";
import { type Markup, markup } from "./markup.ts";
import { errorTexts, type MeasuredTensor, measuredTensors, partTexts } from "./recast-errors.ts";

/** Tensors with the largest errors that are listed. */
const MOST_TENSORS = 20;

const BINS = 24;
/** Bins are at least so wide, as a factor: tensors of one kind differ by less. */
const LEAST_FACTOR = 1.005;

export function errorSection(
  tensors: readonly ComparedTensor[],
  rungs: readonly RungReport[],
): Markup | null {
  const measured = measuredTensors(tensors);
  const bytes = rungs.find((rung) => rung.rung === "bytes");
  const whole = bytes !== undefined && "error" in bytes.metrics ? bytes.metrics.error : undefined;
  if (measured.length === 0 || whole === undefined) return null;
  const rows = measured.slice(0, MOST_TENSORS).map(rowOf);
  const title =
    measured.length > MOST_TENSORS ? `The ${MOST_TENSORS} with the largest errors` : "All of them";
  return markup`<h2>Error of the recast</h2>
<p>${`${formatQuantity(measured.length, "tensor")} with ${formatCount(whole.elements)} elements are stored with other numbers: ${errorTexts(whole).join(", ")}.`}</p>
${histogram(measured)}
<p>${`${title}, by relative L2, by what vanished, or by the error of a part:`}</p>
${htmlTable(["tensor", "relative L2", "clipped", "became 0", "not nearest"], rows, [1, 2, 3, 4])}`;
}

function rowOf({ b, dtypeA, dtypeB, error }: MeasuredTensor): Markup {
  const { relL2, clipped, flushed, notNearest } = error;
  const parts = partTexts(error).map(
    (text) => markup`<br><span class="open">${`${text} lost more than rounding`}</span>`,
  );
  return markup`<tr><td><code>${b}</code> <span class="soft">${`${dtypeA} → ${dtypeB}`}</span>${parts}</td>${numberCell("relative L2", relL2)}${shareCell("clipped", clipped)}${shareCell("became 0", flushed)}${shareCell("not nearest", notNearest)}</tr>\n`;
}

const shareCell = (label: string, share: number): Markup =>
  markup`<td class="n" data-of="${label}">${formatPercent(share)}</td>`;

/** How many tensors have which relative L2; null if no tensor has an error that is a number other than 0. */
function histogram(measured: readonly MeasuredTensor[]): Markup | null {
  const errors = measured.map(({ error }) => error.relL2);
  const finite = errors.filter((relL2) => relL2 > 0 && relL2 < Infinity);
  if (finite.length === 0) return null;
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  const factor = Math.max(LEAST_FACTOR, (high / low) ** (1 / (BINS - 1)));
  const least = Math.sqrt(low * high) * factor ** (-BINS / 2); // the bins lie around the middle of all errors
  const bins = Array.from({ length: BINS }, () => 0);
  for (const relL2 of finite)
    bins[Math.min(BINS - 1, Math.floor(Math.log(relL2 / least) / Math.log(factor)))]! += 1;
  const chart = chartOf({
    title: "Number of tensors by their relative L2",
    axis: "relative L2, from",
    labels: bins.map((_, i) => formatMeasure(least * factor ** i)),
    series: [{ as: "bars", name: "tensors", values: bins }],
    counts: true,
  });
  const exact = errors.filter((relL2) => relL2 === 0).length;
  const infinite = errors.length - exact - finite.length;
  const left = [
    ...(exact === 0 ? [] : [`${formatQuantity(exact, "tensor")} without an error`]),
    ...(infinite === 0 ? [] : [`${formatQuantity(infinite, "tensor")} with infinite numbers`]),
  ];
  return markup`<figure><div class="wide">${chart}</div><figcaption>${`Tensors by relative L2: the norm of the error divided by the norm of the weights.${left.length === 0 ? "" : ` Not drawn: ${left.join(", ")}.`}`}</figcaption></figure>`;
}
