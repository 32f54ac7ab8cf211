/** Findings as a person reads them: a line each, the place last; below it what to do, where that is known. */
import type { Finding, FindingsReport } from "../index.ts";
import { nameFlags } from "./flag-names.ts";
import { some, type View, visible } from "./render.ts";

/** The findings, with flags in place of the library's options. */
export function nameFlagsIn(report: FindingsReport): FindingsReport {
  const findings = report.findings.map((finding) => ({
    ...finding,
    message: nameFlags(finding.message),
    ...(finding.next !== undefined && { next: nameFlags(finding.next) }),
  }));
  return { ...report, findings };
}

const COLOURS = { note: "dim", warning: "yellow", error: "red", danger: "red" } as const;
const SHOWN = 200;

export function findingLines(findings: readonly Finding[], view: View): string[] {
  const lines = findings.map((finding) => line(finding, view));
  return some(lines, view.verbose ? Number.POSITIVE_INFINITY : SHOWN);
}

function line({ rule, severity, at, message, next }: Finding, { paint }: View): string {
  const place = [
    visible(at.file),
    at.tensor === null ? [] : visible(at.tensor),
    at.offset === null ? [] : `byte ${at.offset}`,
  ];
  const said = `${paint(COLOURS[severity], severity)}  ${rule}  ${visible(message)}, in ${place.flat().join(", ")}`;
  return next === undefined ? said : `${said}\nnext: ${visible(next)}`;
}
