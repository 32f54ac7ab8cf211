/** Tensors that hold nothing: weights that never reached the file, or were lost on the way into it. */

import type { EmptyKind } from "../../cast/cast.ts";
import type { Finding } from "../../core/finding.ts";
import { remark } from "../../core/finding.ts";
import type { Role } from "../../families/model.ts";

/** A role whose elements are all 0, or all NaN. */
export interface DeadRole {
  readonly role: Role;
  readonly tensor: string;
  readonly as: EmptyKind;
}

const MOST_NAMES = 5;

/** @param all roles that were looked at */
export function deadFindings(dead: readonly DeadRole[], all: number): readonly Finding[] {
  const ofKind = (as: EmptyKind) => dead.filter((one) => one.as === as);
  const zeros = ofKind("zero");
  // a bias of zeros is usual, and a gain of zeros is the controls' to tell; without a matrix nothing is computed
  const told = zeros.length === all ? zeros : zeros.filter(({ role }) => role.shape.length > 1);
  return [...findingOf(told, all, "0"), ...findingOf(ofKind("NaN"), all, "NaN")];
}

function findingOf(dead: readonly DeadRole[], all: number, what: string): readonly Finding[] {
  if (dead.length === 0) return [];
  const names = dead.map(({ tensor }) => tensor).sort();
  const more = names.length > MOST_NAMES ? ` and ${names.length - MOST_NAMES} more` : "";
  const first = names.slice(0, MOST_NAMES).join(", ");
  const message = `${dead.length} of ${all} tensors are ${what} in every element: ${first}${more}`;
  return [remark("tensor-dead", message, { tensor: names[0]! })];
}
