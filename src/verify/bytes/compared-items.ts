/** What the bytes rung compares: a role, or a scale that no role reads, as either side stores it. */

import { type ModelWithScales, storedRole } from "../../checkpoint/load.ts";
import type { Tensor } from "../../core/checkpoint.ts";
import { countOf, type DType, type Shape } from "../../core/dtype.ts";
import { type ElementSource, roleSource } from "../../core/gather.ts";
import type { Role } from "../../families/model.ts";

/** One thing to compare, as either side stores it. */
export interface ComparedItem {
  readonly key: string;
  readonly role: Role | null;
  readonly shape: Shape;
  /** it enters the content root */
  readonly leaf: boolean;
  readonly a: ComparedSide;
  readonly b: ComparedSide;
}

export interface ComparedSide {
  readonly tensor: string;
  readonly dtype: DType;
  /** null where stored numbers are the real ones */
  readonly scales: Float32Array | null;
  readonly elementSource: ElementSource;
}

/** A role as a side stores it. */
export function comparedRole(role: Role, side: ModelWithScales): ComparedSide {
  const { dtype, tensor } = storedRole(side, role);
  const origin = roleSource(role.key, countOf(role.shape), side.roleSources);
  return { dtype, tensor, scales: side.scaleValues.get(tensor) ?? null, elementSource: origin };
}

/** All elements of a stored tensor, as they lie. */
export function comparedTensor({ name, dtype, shape }: Tensor): ComparedSide {
  const whole = { of: name, size: [countOf(shape)], fromAt: 0, from: [1], toAt: 0, to: [1] };
  return {
    tensor: name,
    dtype,
    scales: null,
    elementSource: { moves: [whole], roles: new Map([[name, [whole]]]) },
  };
}

export function comparedItem(role: Role, a: ModelWithScales, b: ModelWithScales): ComparedItem {
  return {
    key: role.key,
    role,
    shape: role.shape,
    leaf: true,
    a: comparedRole(role, a),
    b: comparedRole(role, b),
  };
}

export interface RoleDifference {
  /** where in the model; of a scale that no role reads, the role it stands beside */
  readonly role: Role | null;
  /** role, or the name of a scale that is none */
  readonly key: string;
  /** stored tensors of both sides that hold it */
  readonly tensors: readonly string[];
  readonly message: string;
}

export function differenceOf({ key, role, a: from, b: to }: ComparedItem, message: string): RoleDifference {
  return { role, key, tensors: [...new Set([from.tensor, to.tensor])], message };
}
