/** How Megatron cuts the roles of a layer into the tensors of its tensor parallel ranks. */
import { concat, type Layout, pad, shapeOf, slice } from "../../../core/mapping/layout.ts";
import type { Is, ShardPosition } from "../../dialect.ts";
import type { Dims } from "../../structure.ts";

export type RankCut = (layout: Layout, at: ShardPosition) => Layout;

/** An even share of one axis; with one part, the whole. */
function share(layout: Layout, axis: number, part: number, of: number): Layout {
  if (of === 1) return layout;
  const size = shapeOf(layout)[axis]! / of;
  return slice(layout, axis, part * size, (part + 1) * size);
}

/** Every rank has the whole tensor; the copies must be equal. */
export const whole: RankCut = (layout) => layout;
export const rows: RankCut = (layout, at) => share(layout, 0, at.tp, at.of);
export const columns: RankCut = (layout, at) => share(layout, 1, at.tp, at.of);
export const expertRows: RankCut = (layout, at) => share(layout, 0, at.expertTp, at.expertOf);
export const expertColumns: RankCut = (layout, at) => share(layout, 1, at.expertTp, at.expertOf);

export const is =
  <D extends Dims>(role: string, cut: RankCut): Is<D> =>
  (of, _, at) =>
    cut(of(role), at);

/** Rows of zeros are added, up to a number that divides evenly among ranks. */
export const paddedRows: RankCut = (layout, at) => rows(pad(layout, at.rows), at);

/**
 * Query, key and value rows by group: the queries of a group, then its key, then its value. Each rank has an equal run of
 * these rows; if the groups divide evenly among ranks, a run is whole groups.
 */
export const interleaved =
  <D extends HeadDims>(suffix = ""): Is<D> =>
  (of, d, at) => {
    const [q, k, v] = ["q", "k", "v"].map((name) => of(`attn.${name}${suffix}`)) as [Layout, Layout, Layout];
    const queries = (d.heads / d.kvHeads) * d.headDim;
    const groups = Array.from({ length: d.kvHeads }, (_, j) => [
      slice(q, 0, j * queries, (j + 1) * queries),
      slice(k, 0, j * d.headDim, (j + 1) * d.headDim),
      slice(v, 0, j * d.headDim, (j + 1) * d.headDim),
    ]);
    return rows(concat(0, groups.flat()), at);
  };

/** The gate's rows of a rank, then its rows of the other projection: not a share of both together. */
export const gatedRows =
  <D extends Dims>(gate: string, up: string, cut: RankCut = rows): Is<D> =>
  (of, _, at) =>
    concat(0, [cut(of(gate), at), cut(of(up), at)]);

/** Widths that queries, keys and values are divided by. */
interface HeadDims extends Dims {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}
