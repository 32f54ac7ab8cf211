/**
 * What a verification tells beside its rungs. A *difference* is something of the model, its behaviour or its files that
 * is not the same or is missing; `strict` makes it an error. A *remark* is worth knowing and is no fault of either side.
 */
import type { Finding, Verdict } from "../api/reports.ts";
import type { FileOutcome } from "../checkpoint/side-files/rules.ts";
import { worseVerdict } from "./verdict.ts";

/** The file or the stored tensor that a finding is about; neither where it is about the checkpoint. */
export interface FindingLocation {
  readonly file?: string;
  readonly tensor?: string;
}

/** @param rule stable: scripts, JUnit and SARIF go by it; its text is in `RULES` of src/report/problems.ts */
export function difference(rule: string, message: string, at: FindingLocation = {}): Finding {
  return { rule, severity: "warning", at: placeOf(at), message };
}

/** @param rule as of `difference` */
export function remark(rule: string, message: string, at: FindingLocation = {}): Finding {
  return { rule, severity: "note", at: placeOf(at), message };
}

const placeOf = ({ file = "", tensor }: FindingLocation): Finding["at"] => ({
  file,
  tensor: tensor ?? null,
  offset: null,
});

/** Under `strict` each difference, and each warning of a survey, is an error; otherwise the findings as they are. */
export function judgeFindings(findings: readonly Finding[], strict: boolean | undefined): readonly Finding[] {
  if (strict !== true) return findings;
  return findings.map((one) => (one.severity === "warning" ? { ...one, severity: "error" } : one));
}

/** A rung's verdict together with the findings that it made. */
export function verdictWith(verdict: Verdict, findings: readonly Finding[]): Verdict {
  return findings.some(({ severity }) => severity === "error") ? worseVerdict(verdict, "different") : verdict;
}

/** What the table of side files makes of a difference: nothing, or one finding; `different` is an error. */
export function withSeverity(
  outcome: FileOutcome,
  rule: string,
  message: string,
  at: FindingLocation,
): readonly Finding[] {
  if (outcome === "nothing") return [];
  if (outcome === "remark") return [remark(rule, message, at)];
  const found = difference(rule, message, at);
  return outcome === "different" ? [{ ...found, severity: "error" }] : [found];
}

/** Both fields of a report that hold findings: as text, and with rule, severity and place. */
export function reportedFindings(findings: readonly Finding[]) {
  return { findings: findings.map(({ message }) => message), findingDetails: findings };
}
