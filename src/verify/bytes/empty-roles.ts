/** Finds tensors without information: all elements are 0 or NaN, because weights were not saved or were lost. */

import type { EmptyKind } from "../../cast/cast.ts";
import type { Finding } from "../../core/finding.ts";
import { remark } from "../../core/finding.ts";
import type { Role } from "../../families/model.ts";

/** A role whose elements are all 0, or all NaN. */
export interface EmptyRole {
  readonly role: Role;
  readonly tensor: string;
  readonly as: EmptyKind;
}

const MOST_NAMES = 5;

/**
 * Findings about roles without information.
 *
 * @param all number of roles that were checked
 */
export function emptyRoleFindings(dead: readonly EmptyRole[], all: number): readonly Finding[] {
  const ofKind = (as: EmptyKind) => dead.filter((role) => role.as === as);
  const zeros = ofKind("zero");
  // biases of 0 are usual and the controls report gains of 0, so only matrices are reported, unless everything is 0
  const reported = zeros.length === all ? zeros : zeros.filter(({ role }) => role.shape.length > 1);
  return [...findingOf(reported, all, "0"), ...findingOf(ofKind("NaN"), all, "NaN")];
}

function findingOf(dead: readonly EmptyRole[], all: number, value: string): readonly Finding[] {
  if (dead.length === 0) return [];
  const names = dead.map(({ tensor }) => tensor).sort();
  const more = names.length > MOST_NAMES ? ` and ${names.length - MOST_NAMES} more` : "";
  const first = names.slice(0, MOST_NAMES).join(", ");
  const message = `${dead.length} of ${all} tensors are ${value} in every element: ${first}${more}`;
  return [remark("tensor-dead", message, { tensor: names[0]! })];
}
