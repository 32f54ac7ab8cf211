/** Uses of tensors that are stored as they are multiplied. */
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
