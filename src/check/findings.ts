/** What a survey finds wrong. Rules have stable names: scripts look for them. */
import type { Finding } from "../core/finding.ts";

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
