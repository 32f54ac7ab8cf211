/** What the bytes rung compares: a role, or a scale that no role reads, as either side stores it. */
import type { Tensor } from "../../core/checkpoint.ts";
import { countOf, type DType, type Shape } from "../../core/dtype.ts";
import { type Origin, roleOrigin } from "../../core/mapping/gather.ts";
import type { Role } from "../../families/match.ts";
import { type Ready, storedAs } from "../../inference/model-runner.ts";

/** One thing to compare, as either side stores it. */
export interface Item {
  readonly key: string;
  readonly role: Role | null;
  readonly shape: Shape;
  /** it enters the content root */
  readonly leaf: boolean;
  readonly a: Half;
  readonly b: Half;
}

export interface Half {
  readonly tensor: string;
  readonly dtype: DType;
  /** null where stored numbers are the real ones */
  readonly scales: Float32Array | null;
  readonly origin: Origin;
}

/** A role as a side stores it. */
export function halfOf(role: Role, side: Ready): Half {
  const { dtype, tensor } = storedAs(side, role);
  const origin = roleOrigin(role.key, countOf(role.shape), side.matched.origin);
  return { dtype, tensor, scales: side.scales.get(tensor) ?? null, origin };
}

/** All elements of a stored tensor, as they lie. */
export function wholeOf({ name, dtype, shape }: Tensor): Half {
  const whole = { of: name, size: [countOf(shape)], fromAt: 0, from: [1], toAt: 0, to: [1] };
  return {
    tensor: name,
    dtype,
    scales: null,
    origin: { moves: [whole], roles: new Map([[name, [whole]]]) },
  };
}

export function itemOf(role: Role, a: Ready, b: Ready): Item {
  return { key: role.key, role, shape: role.shape, leaf: true, a: halfOf(role, a), b: halfOf(role, b) };
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

export function differenceOf({ key, role, a: from, b: to }: Item, message: string): RoleDifference {
  return { role, key, tensors: [...new Set([from.tensor, to.tensor])], message };
}
