/** What a survey finds wrong. Rules have stable names: scripts look for them. */
import type { Finding, Severity } from "../api/reports.ts";
import { IsologitError } from "../core/errors.ts";

export function finding(
  rule: string,
  severity: Severity,
  at: { readonly file: string; readonly tensor?: string; readonly offset?: number },
  message: string,
): Finding {
  const { file, tensor = null, offset = null } = at;
  return { rule, severity, at: { file, tensor, offset }, message };
}

/** A fault of the input as a finding: `SHAPE_MISMATCH` is the rule `shape-mismatch`. Any other error goes on. */
export function findingOf(error: unknown, file: string): Finding {
  if (!(error instanceof IsologitError) || error.exit !== 3) throw error;
  const rule = error.code.toLowerCase().replaceAll("_", "-");
  return finding(rule, "error", { file, ...error.at }, error.message);
}

/** No finding is an error or worse. */
export function isOk(findings: readonly Finding[]): boolean {
  return !findings.some(({ severity }) => severity === "error" || severity === "danger");
}
