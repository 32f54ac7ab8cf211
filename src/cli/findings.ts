/** Findings as text: one line each, the location last; below it the next step, if the finding has one. */
import { escapeControls } from "../core/figures.ts";
import type { Finding, FindingsReport, VerifyReport } from "../index.ts";
import { nameFlags } from "./flag-names.ts";
import { firstItems, type View } from "./render.ts";

/** The report of `check` or `scan`, with flags in place of the library's options. */
export function nameFlagsIn<R extends FindingsReport>(report: R): R {
  return { ...report, findings: report.findings.map(nameFlagsOf) };
}

/** The report of a verification, with flags in place of the library's options. */
export function nameFlagsInVerification(report: VerifyReport): VerifyReport {
  const { findings, findingDetails } = report;
  return { ...report, findings: findings.map(nameFlags), findingDetails: findingDetails.map(nameFlagsOf) };
}

function nameFlagsOf(finding: Finding): Finding {
  const { message, next } = finding;
  return { ...finding, message: nameFlags(message), ...(next !== undefined && { next: nameFlags(next) }) };
}

const COLOURS = { note: "dim", warning: "yellow", error: "red", danger: "red" } as const;
const SHOWN = 200;

export function findingLines(findings: readonly Finding[], view: View): string[] {
  const lines = findings.map((finding) => line(finding, view));
  return firstItems(lines, view.verbose ? Number.POSITIVE_INFINITY : SHOWN);
}

function line({ rule, severity, at, message, next }: Finding, { paint }: View): string {
  const place = [
    escapeControls(at.file),
    at.tensor === null ? [] : escapeControls(at.tensor),
    at.offset === null ? [] : `byte ${at.offset}`,
  ];
  const text = `${paint(COLOURS[severity], severity)}  ${rule}  ${escapeControls(message)}, in ${place.flat().join(", ")}`;
  return next === undefined ? text : `${text}\nnext: ${escapeControls(next)}`;
}
