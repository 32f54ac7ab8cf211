/** The items that the bytes rung compares: roles, and scales that no role reads. */

import { type ModelWithScales, storedRole } from "../../checkpoint/load.ts";
import type { Tensor } from "../../core/checkpoint.ts";
import { countOf, type DType, type Shape } from "../../core/dtype.ts";
import { type ElementSource, roleSource } from "../../core/gather.ts";
import type { Role } from "../../families/model.ts";

/** One item to compare. */
export interface ComparedItem {
  readonly key: string;
  readonly role: Role | null;
  readonly shape: Shape;
  /** whether this item is a leaf of the content root */
  readonly leaf: boolean;
  readonly a: ComparedSide;
  readonly b: ComparedSide;
}

/** An item as one side stores it. */
export interface ComparedSide {
  readonly tensor: string;
  readonly dtype: DType;
  /** scales of the stored numbers; null where there are none */
  readonly scales: Float32Array | null;
  readonly elementSource: ElementSource;
}

/** A role as one side stores it. */
export function comparedRole(role: Role, side: ModelWithScales): ComparedSide {
  const { dtype, tensor } = storedRole(side, role);
  const elementSource = roleSource(role.key, countOf(role.shape), side.roleSources);
  return { dtype, tensor, scales: side.scaleValues.get(tensor) ?? null, elementSource };
}

/** All elements of a stored tensor, in stored order. */
export function comparedTensor({ name, dtype, shape }: Tensor): ComparedSide {
  const whole = { of: name, size: [countOf(shape)], fromAt: 0, from: [1], toAt: 0, to: [1] };
  return {
    tensor: name,
    dtype,
    scales: null,
    elementSource: { moves: [whole], roles: new Map([[name, [whole]]]) },
  };
}

/** A role as an item to compare. */
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
  /** the role; for a scale that no role reads, the role nearest to it; null: none */
  readonly role: Role | null;
  /** key of the role, or name of the scale */
  readonly key: string;
  /** stored tensors of both sides that hold the item */
  readonly tensors: readonly string[];
  readonly message: string;
}

/** The difference that was found for one compared role or scale, with its message. */
export function roleDifference({ key, role, a: from, b: to }: ComparedItem, message: string): RoleDifference {
  return { role, key, tensors: [...new Set([from.tensor, to.tensor])], message };
}
