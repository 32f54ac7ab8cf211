/** A stored tensor read with two of its blocks exchanged: the same pieces, cut at the blocks and placed anew. */
import type { Piece, Tensor } from "../../core/checkpoint.ts";
import { stridesOf, widthOf } from "../../core/dtype.ts";

/** `count` rows (axis 0) or columns (axis 1) at `a` and at `b`, which do not overlap. */
export interface BlockExchange {
  readonly axis: 0 | 1;
  readonly a: number;
  readonly b: number;
  readonly count: number;
}

/** The tensor as it would be, had someone mixed up the two blocks. No byte is read or moved. */
export function exchangeBlocks(tensor: Tensor, { axis, a, b, count }: BlockExchange): Tensor {
  const cuts = [a, a + count, b, b + count].sort((x, y) => x - y);
  const pieces = tensor.pieces.flatMap((piece) => cut(piece, axis, cuts, widthOf(tensor.dtype)));
  return { ...tensor, pieces: pieces.map((piece) => moved(piece, axis, by(piece.start[axis]!))) };

  function by(at: number): number {
    if (at >= a && at < a + count) return b - a;
    return at >= b && at < b + count ? a - b : 0;
  }
}

/** A piece cut along an axis wherever one of `cuts` falls inside it. */
function cut(piece: Piece, axis: number, cuts: readonly number[], width: number): Piece[] {
  const [from, size] = [piece.start[axis]!, piece.shape[axis]!];
  const strides = piece.strides ?? stridesOf(piece.shape);
  const inside = cuts.filter((at) => at > from && at < from + size);
  const edges = [...new Set([from, ...inside, from + size])];
  return edges.slice(0, -1).map((lo, i) => ({
    ...piece,
    offset: piece.offset + (lo - from) * strides[axis]! * width,
    start: piece.start.with(axis, lo),
    shape: piece.shape.with(axis, edges[i + 1]! - lo),
    strides,
  }));
}

function moved(piece: Piece, axis: number, by: number): Piece {
  return by === 0 ? piece : { ...piece, start: piece.start.with(axis, piece.start[axis]! + by) };
}
