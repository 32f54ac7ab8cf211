/** The outcome of `convert`, `recast` and `verify` in a few lines. The first line says what came out, and the verdict. */
import {
  escapeControls,
  formatBytes,
  formatMeasure,
  formatPercent,
  formatQuantity,
} from "../core/figures.ts";
import type { ConvertReport, Verdict, VerifyReport } from "../index.ts";
import { comparedLogits, controlsText, MEANINGS } from "../report/measures.ts";
import { divergenceText, objections, selectGravest } from "../report/problems.ts";
import { leftOutRows } from "./left-out.ts";
import { phaseText } from "./progress/meter.ts";
import { factTable, firstItems, formatDuration, type View, wrapParts } from "./render.ts";
import { searchRow } from "./searches.ts";
import { paintVerdict } from "./verdict.ts";

/** Reasons, and remarks, that are shown without --verbose. */
const FEW = 3;

/** Columns that the labels take. */
const LABEL_COLUMNS = 13;

const MORE = "--verbose shows every measure";

type Row = readonly [label: string, value: readonly string[] | string | null];

/** `within: wrote ./fp8, the same model as ./bf16 within the limits of its recast` */
export function convertHeadline(
  { source, destination, staged, verification }: ConvertReport,
  view: View,
): readonly string[] {
  const [from, to] = [escapeControls(source.address), escapeControls(destination.path)];
  if (verification === null) {
    if (view.quiet) return [view.paint("yellow", "not verified")];
    return sentence(`${view.paint("yellow", "not verified")}: wrote ${to}, because of --verify off`, view);
  }
  const { verdict } = verification;
  const text =
    verdict === "same"
      ? `wrote ${to}, the same model as ${from}`
      : verdict === "within"
        ? `wrote ${to}, the same model as ${from} within the limits of its recast`
        : `${to} ${staged === undefined ? "existed already" : "was not written"}: ${verdict === "different" ? `it is not the same model as ${from}` : MEANINGS[verdict]}`;
  return headline(verdict, text, view);
}

/** `within: ./fp8 is the same model as ./bf16 within the limits of its recast` */
export function verifyHeadline(
  { verdict }: VerifyReport,
  { a, b }: { readonly a: string; readonly b: string | null },
  view: View,
): readonly string[] {
  const [first, second] = [escapeControls(a), b === null ? null : escapeControls(b)];
  const [what, of] = second === null ? [first, "that was certified"] : [second, `as ${first}`];
  const texts: Readonly<Record<Verdict, string>> = {
    same: `${what} is the same model ${of}`,
    within: `${what} is the same model ${of} within the limits of its recast`,
    different: `${what} is not the same model ${of}`,
    unproven: `${what}: ${MEANINGS.unproven}`,
  };
  return headline(verdict, texts[verdict], view);
}

function headline(verdict: Verdict, text: string, view: View): readonly string[] {
  const word = paintVerdict(view.paint, verdict);
  return view.quiet ? [word] : sentence(`${word}: ${text}`, view);
}

const sentence = (text: string, { width }: View): readonly string[] => wrapParts(text.split(" "), width, " ");

export function convertSummary(report: ConvertReport, view: View): readonly string[] {
  const { source, destination, verification, bytesResumed } = report;
  const [first = "", ...others] = phaseTexts(view);
  const total = `${formatDuration(report.seconds)}${first === "" ? "" : `: ${first}`}`;
  const values = report.exact ? "every bit is unchanged" : (recastText(verification) ?? "recast");
  return factTable(view, [
    ["format", `${source.format} to ${destination.format}, ${formatBytes(destination.bytes)}`],
    ["values", wrap(values, view)],
    ["written", bytesResumed === 0 ? null : `${formatBytes(report.bytesWritten)}${resumedText(report)}`],
    searchRow(report),
    ...leftOutRows(report),
    ...(verification === null ? [] : verificationRows(verification, view)),
    ["time", wrapParts([total, ...others], view.width - LABEL_COLUMNS)],
    ["", view.paint("dim", MORE)],
  ]);
}

/** `, 2.1 GB by an earlier run`; empty if this run wrote everything. */
export const resumedText = ({ bytesResumed }: Pick<ConvertReport, "bytesResumed">): string =>
  bytesResumed === 0 ? "" : `, ${formatBytes(bytesResumed)} by an earlier run`;

export function verifySummary(report: VerifyReport, view: View): readonly string[] {
  const times = phaseTexts(view);
  return factTable(view, [
    ["values", wrap(recastText(report) ?? "", view)],
    ...verificationRows(report, view),
    ["time", times.length === 0 ? null : wrapParts(times, view.width - LABEL_COLUMNS)],
    ["", view.paint("dim", MORE)],
  ]);
}

/** `24 of 109 tensors recast: relative L2 0.0265, 0.0009 % became 0`; null where no values were compared. */
function recastText(report: VerifyReport | null): string | null {
  const bytes = report?.rungs.find((rung) => rung.rung === "bytes")?.metrics;
  if (bytes === undefined || !("recast" in bytes)) return null;
  const { recast, roles, error } = bytes;
  if (recast === 0) return report?.verdict === "same" ? "every bit is unchanged" : null;
  const lost =
    error === undefined ? [] : [["clipped", error.clipped] as const, ["became 0", error.flushed] as const];
  const shares = lost.flatMap(([what, share]) => (share === 0 ? [] : [`${formatPercent(share)} ${what}`]));
  const measures = error === undefined ? [] : [`relative L2 ${formatMeasure(error.relL2)}`, ...shares];
  return `${recast} of ${formatQuantity(roles, "tensor")} recast${measures.length === 0 ? "" : `: ${measures.join(", ")}`}`;
}

function verificationRows(report: VerifyReport, view: View): readonly Row[] {
  const { firstDivergence: first, rungs, findingDetails, certificate, bundle } = report;
  const wide = view.width - LABEL_COLUMNS;
  const why = [
    ...(first === null ? [] : [divergenceText(first), ...first.tensors.slice(0, 1)]),
    ...rungs.flatMap(objections),
  ];
  const told = new Set(rungs.flatMap(objections));
  const found = selectGravest(
    findingDetails.filter(({ message }) => !told.has(message)),
    FEW,
  );
  const more = found.leftOut === 0 ? [] : [`and ${found.leftOut} more`];
  const checks = rungs.map(({ rung, verdict }) => `${rung} ${paintVerdict(view.paint, verdict)}`);
  return [
    ["checks", wrapParts([...checks, ...qualityTexts(report)], wide)],
    ["why", firstItems(why, FEW).flatMap((text) => wrap(text, view))],
    ["signed by", certificate?.signedBy == null ? null : `key ${certificate.signedBy}`],
    ["bundle", bundle === undefined ? null : `${formatQuantity(bundle.files, "file")} signed`],
    ["found", [...found.shown.map(({ message }) => message), ...more].flatMap((text) => wrap(text, view))],
  ];
}

/** The quality of a recast, and the deliberate faults that were found; that of other runs is exact. */
function qualityTexts(report: VerifyReport): readonly string[] {
  const logits = comparedLogits(report);
  if (logits === undefined) return [];
  const quality = [`KL mean ${formatMeasure(logits.klMean)} nats`, `top-1 ${formatPercent(logits.top1)}`];
  return [...(report.verdict === "same" ? [] : quality), controlsText(logits.controls)];
}

/** Phases that took time worth telling. */
export const phaseTexts = ({ phases }: View): readonly string[] =>
  phases.filter(({ seconds, bytes }) => bytes > 0 || seconds >= 1).map(phaseText);

const wrap = (text: string, { width }: View): readonly string[] =>
  text === "" ? [] : wrapParts(escapeControls(text).split(" "), width - LABEL_COLUMNS, " ");
