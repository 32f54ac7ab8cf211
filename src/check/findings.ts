/** What a survey finds wrong. Rules have stable names: scripts look for them. */
import type { Finding, Severity } from "../api/reports.ts";
import { ERRORS, IsologitError } from "../core/errors.ts";

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

/** As many of one rule in one file stay apart, for each is worth reading. */
const MOST_APART = 3;

/** Findings of one rule, severity and file as one, with a count, where they are more than a few. Order is kept. */
export function gatherFindings(findings: readonly Finding[]): readonly Finding[] {
  const groups = new Map<string, Finding[]>();
  for (const one of findings) {
    const key = JSON.stringify([one.rule, one.severity, one.at.file]);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [one]);
    else group.push(one);
  }
  return [...groups.values()].flatMap((group) => (group.length > MOST_APART ? [joined(group)] : group));
}

const EXAMPLES = 3;

function joined(group: readonly Finding[]): Finding {
  const [first] = group;
  const tensors = group.flatMap(({ at }) => at.tensor ?? []);
  const messages = [...new Set(group.map(({ message }) => message))];
  const of = tensors.length === group.length ? "tensors" : "findings";
  const message =
    messages.length === 1
      ? `${group.length} ${of}: ${messages[0]}: ${exampleOf(tensors)}`
      : `${group.length} ${of}, the first: ${first!.message}`;
  return { ...first!, message, ...(tensors.length > 0 && { tensors }) };
}

function exampleOf(names: readonly string[]): string {
  const more = names.length > EXAMPLES ? ` and ${names.length - EXAMPLES} more` : "";
  return `${names.slice(0, EXAMPLES).join(", ")}${more}`;
}

/** No finding is an error or worse. */
export function isOk(findings: readonly Finding[]): boolean {
  return !findings.some(({ severity }) => severity === "error" || severity === "danger");
}
