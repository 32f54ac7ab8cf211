/** Joins many findings of the same rule into one. */
import type { Finding } from "../core/finding.ts";

/** Up to this number, findings with the same rule and file are listed separately. */
const MOST_APART = 3;

/** Joins many findings with the same rule, severity, file and engines into one finding with a count. The order does not change. */
export function gatherFindings(findings: readonly Finding[]): readonly Finding[] {
  const groups = new Map<string, Finding[]>();
  for (const finding of findings) {
    const key = JSON.stringify([finding.rule, finding.severity, finding.at.file, finding.engines]);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [finding]);
    else group.push(finding);
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
