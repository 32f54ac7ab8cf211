/** Findings: facts that a command reports about a checkpoint besides its main result. */
import { ERRORS, IsologitError } from "./errors.ts";

export type Severity = "note" | "warning" | "error" | "danger";

/** A fault or a fact of a checkpoint. The names of rules are stable, because scripts use them. */
export interface Finding {
  readonly rule: string;
  readonly severity: Severity;
  readonly at: { readonly file: string; readonly tensor: string | null; readonly offset: number | null };
  readonly message: string;
  /** the next step for the user, if one is known */
  readonly next?: string;
  /** all tensors of the finding, if there are several */
  readonly tensors?: readonly string[];
  /** engines that read the checkpoint otherwise than it is meant, as the option `for` of `check` names them */
  readonly engines?: readonly string[];
}

/** `ok`: no finding is an error or a danger. */
export interface FindingsReport {
  readonly ok: boolean;
  readonly findings: readonly Finding[];
}

/** How severe findings are. */
export interface StrictOptions {
  /** a finding that names a difference makes the verdict `different`; of `check`: a warning is an error */
  readonly strict?: boolean;
}

/** The file or stored tensor of a finding; neither if it concerns the whole checkpoint. */
export interface FindingLocation {
  readonly file?: string;
  readonly tensor?: string;
}

/** A finding that two sides differ. @param rule stable name; its text is in `RULES` of src/report/problems.ts */
export function difference(rule: string, message: string, at: FindingLocation = {}): Finding {
  return { rule, severity: "warning", at: locationOf(at), message };
}

/** A finding that needs no action. @param rule as in `difference` */
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

/** An input error as a finding: code `SHAPE_MISMATCH` becomes rule `shape-mismatch`. Throws any other error again. */
export function findingOf(error: unknown, file: string): Finding {
  if (!(error instanceof IsologitError) || error.exit !== 3) throw error;
  const rule = error.code.toLowerCase().replaceAll("_", "-");
  const found = finding(rule, "error", { file, ...error.at }, error.message);
  // The next step of the table is the same for every file; reports print it once.
  return error.next === ERRORS[error.code].next ? found : { ...found, next: error.next };
}

/** A near miss as a finding: what was found instead of a checkpoint, and the next step. */
export function nearMiss(error: IsologitError, file: string): Finding {
  return { ...findingOf(error, file), next: error.next };
}

/** Whether no finding is an error or a danger. */
export function isOk(findings: readonly Finding[]): boolean {
  return !findings.some(({ severity }) => severity === "error" || severity === "danger");
}
