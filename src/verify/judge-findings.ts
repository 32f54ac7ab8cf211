/**
 * What a verification tells beside its rungs. A *difference* is something of the model, its behaviour or its files that
 * is not the same or is missing; `strict` makes it an error. A *remark* is worth knowing and is no fault of either side.
 */
import type { Finding } from "../core/finding.ts";
import type { Verdict } from "./verdict.ts";
import { worseVerdict } from "./verdict.ts";

/** Under `strict` each difference, and each warning of a survey, is an error; otherwise the findings as they are. */
export function judgeFindings(findings: readonly Finding[], strict: boolean | undefined): readonly Finding[] {
  if (strict !== true) return findings;
  return findings.map((one) => (one.severity === "warning" ? { ...one, severity: "error" } : one));
}

/** A rung's verdict together with the findings that it made. */
export function verdictWith(verdict: Verdict, findings: readonly Finding[]): Verdict {
  return findings.some(({ severity }) => severity === "error") ? worseVerdict(verdict, "different") : verdict;
}

/** Both fields of a report that hold findings: as text, and with rule, severity and place. */
export function reportedFindings(findings: readonly Finding[]) {
  return { findings: findings.map(({ message }) => message), findingDetails: findings };
}
