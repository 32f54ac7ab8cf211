/** Findings about `tie_word_embeddings`: its effect on the head, and the loaders that ignore it. */

import type { Checkpoint } from "../core/checkpoint.ts";
import type { Finding } from "../core/finding.ts";
import { finding, findingOf } from "../core/finding.ts";
import { findSampledDifference } from "../core/first-difference.ts";
import type { Sources } from "../core/read.ts";
import type { Family } from "../families/family.ts";
import { matchRoles, replicaError } from "../families/match.ts";
import type { MatchedModel } from "../families/model.ts";

/** Reads some elements of the head and of the token table, if both are stored. */
export async function checkTies(
  checkpoint: Checkpoint,
  families: readonly Family[],
  companions: ReadonlySet<string>,
  files: Sources,
): Promise<readonly Finding[]> {
  let matched: MatchedModel;
  try {
    matched = matchRoles(checkpoint, families, companions);
  } catch {
    return []; // `checkWeights` reports the same fault
  }
  const at = { file: "config.json" };
  const pairs = matched.replicas.filter(({ tied }) => tied === true);
  if (pairs.length === 0 && !matched.tied) return [];
  if (pairs.length === 0) {
    const message =
      "tie_word_embeddings is true and lm_head.weight is not stored: Isologit uses the token table as the head, but Transformers 5.12 does not tie the two in this family and initialises the head at random";
    return [finding("tied-head", "error", at, message)];
  }
  const findings: Finding[] = [];
  for (const pair of pairs) {
    const [copy, original] = [matched.tensors.get(pair.tensor)!, matched.tensors.get(pair.of)!];
    const file = copy.pieces[0]!.file;
    try {
      const index = await findSampledDifference(copy, original, files);
      if (index >= 0) throw replicaError(pair, index);
      const message = `tie_word_embeddings is true and ${copy.name} is stored: the elements that were compared are equal to those of ${original.name}`;
      findings.push(finding("tied-head", "note", at, message));
    } catch (error) {
      const found = findingOf(error, file);
      findings.push(found.rule === "replica-differs" ? { ...found, rule: "tied-head" } : found);
    }
  }
  return findings;
}
