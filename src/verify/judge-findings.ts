/**
 * Judges findings of a verification. A *difference* is a part of the model, its behaviour or its files that is not the
 * same or is missing; `strict` makes it an error. A *remark* is information and not a fault of either side.
 */
import type { Finding } from "../core/finding.ts";
import type { Verdict } from "./report.ts";
import { worseVerdict } from "./verdict.ts";

/** With `strict`, every warning becomes an error; otherwise the findings are unchanged. */
export function judgeFindings(findings: readonly Finding[], strict: boolean | undefined): readonly Finding[] {
  if (strict !== true) return findings;
  return findings.map((found) => (found.severity === "warning" ? { ...found, severity: "error" } : found));
}

/** The verdict of a rung after its findings: an error makes it `different`. */
export function verdictWith(verdict: Verdict, findings: readonly Finding[]): Verdict {
  return findings.some(({ severity }) => severity === "error") ? worseVerdict(verdict, "different") : verdict;
}

/** The two fields of a report with findings: texts only, and with rule, severity and location. */
export function reportedFindings(findings: readonly Finding[]) {
  return { findings: findings.map(({ message }) => message), findingDetails: findings };
}
