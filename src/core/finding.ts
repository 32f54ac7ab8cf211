/** Findings: what a command reports about a checkpoint beside its main result. Rules have stable names, which scripts use. */
import { ERRORS, IsologitError } from "./errors.ts";

export type Severity = "note" | "warning" | "error" | "danger";

/** Something wrong with a checkpoint. `rule` is stable: scripts may look for it. */
export interface Finding {
  readonly rule: string;
  readonly severity: Severity;
  readonly at: { readonly file: string; readonly tensor: string | null; readonly offset: number | null };
  readonly message: string;
  /** what to do about it, where that is known */
  readonly next?: string;
  /** every tensor that it is about, where they are several */
  readonly tensors?: readonly string[];
}

/** `ok`: no finding is an error or a danger. */
export interface FindingsReport {
  readonly ok: boolean;
  readonly findings: readonly Finding[];
}

/** How findings are judged. */
export interface StrictOptions {
  /** a finding that names a difference makes the verdict `different`; of `check`: a warning is an error */
  readonly strict?: boolean;
}

/** The file or the stored tensor that a finding is about; neither where it is about the checkpoint. */
export interface FindingLocation {
  readonly file?: string;
  readonly tensor?: string;
}

/** @param rule stable: scripts, JUnit and SARIF go by it; its text is in `RULES` of src/report/problems.ts */
export function difference(rule: string, message: string, at: FindingLocation = {}): Finding {
  return { rule, severity: "warning", at: locationOf(at), message };
}

/** @param rule as of `difference` */
export function remark(rule: string, message: string, at: FindingLocation = {}): Finding {
  return { rule, severity: "note", at: locationOf(at), message };
}

const locationOf = ({ file = "", tensor }: FindingLocation): Finding["at"] => ({
  file,
  tensor: tensor ?? null,
  offset: null,
});

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
  const found = finding(rule, "error", { file, ...error.at }, error.message);
  // The table's own next step is the same for every file: said once by those who know the table.
  return error.next === ERRORS[error.code].next ? found : { ...found, next: error.next };
}

/** A near miss as a finding: what lies there, and the step that leads on. */
export function nearMiss(error: IsologitError, file: string): Finding {
  return { ...findingOf(error, file), next: error.next };
}

/** No finding is an error or worse. */
export function isOk(findings: readonly Finding[]): boolean {
  return !findings.some(({ severity }) => severity === "error" || severity === "danger");
}
