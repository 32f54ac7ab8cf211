/** Describes a stored tensor with two blocks exchanged: its pieces are cut at the edges of the blocks and moved. */
import type { Piece, Tensor } from "../../core/checkpoint.ts";
import { stridesOf, widthOf } from "../../core/dtype.ts";

/** Two blocks that do not overlap: `count` rows (axis 0) or columns (axis 1), from `a` on and from `b` on. */
export interface BlockExchange {
  readonly axis: 0 | 1;
  readonly a: number;
  readonly b: number;
  readonly count: number;
}

/** The tensor with the two blocks exchanged. No byte is read or moved. */
export function exchangeBlocks(tensor: Tensor, { axis, a, b, count }: BlockExchange): Tensor {
  const cuts = [a, a + count, b, b + count].sort((x, y) => x - y);
  const pieces = tensor.pieces.flatMap((piece) => cutPiece(piece, axis, cuts, widthOf(tensor.dtype)));
  return { ...tensor, pieces: pieces.map((piece) => movePiece(piece, axis, offsetOf(piece.start[axis]!))) };

  function offsetOf(at: number): number {
    if (at >= a && at < a + count) return b - a;
    return at >= b && at < b + count ? a - b : 0;
  }
}

/** Cuts a piece along an axis at every position of `cuts` inside the piece. */
function cutPiece(piece: Piece, axis: number, cuts: readonly number[], width: number): Piece[] {
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

function movePiece(piece: Piece, axis: number, by: number): Piece {
  return by === 0 ? piece : { ...piece, start: piece.start.with(axis, piece.start[axis]! + by) };
}
