/** All experts of a layer as one tensor, in the order of their numbers. */
import { concat, reshape, shapeOf } from "../../core/mapping/layout.ts";
import type { Is } from "../dialect.ts";
import type { Dims } from "../structure.ts";

/** [experts, rows, columns] */
export const stackExperts =
  <D extends Dims & { readonly experts: number }>(role: string): Is<D> =>
  (of, d) =>
    concat(
      0,
      Array.from({ length: d.experts }, (_, expert) => {
        const matrix = of(role, expert);
        return reshape(matrix, [1, ...shapeOf(matrix)]);
      }),
    );
