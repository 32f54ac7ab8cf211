/** Uses of tensors that are stored as they are multiplied, alone or stacked. */
import type { Use } from "../forward.ts";
import type { Dims } from "../structure.ts";

/** All rows of a tensor produce one stream or parameter. */
export const whole = <D extends Dims>(
  name: string,
  to: string | ((d: D) => string),
  count: (d: D) => number,
): Use<D> => ({
  name,
  outputs: (d) => [{ to: typeof to === "string" ? to : to(d), at: 0, from: 0, count: count(d) }],
});

/** The matrices of all experts as one tensor: the rows of one expert after the other. */
export const stackedExperts = <D extends Dims>(
  name: string,
  to: string,
  count: (d: D) => number,
): Use<D> => ({
  name,
  outputs: (d, { expert }) => [{ to, at: 0, from: expert * count(d), count: count(d) }],
});
