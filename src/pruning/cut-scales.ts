/**
 * Weights with a scale for each row or block, cut together with their scales. What stays is a stored tensor of its own: its
 * pieces are boxes of the source's files, so codes and scales stay bit for bit and nothing is copied. An axis is cut where a
 * block ends; an axis that one block covers needs no new scales, and is cut as that of any other weight.
 */
import type { LoadedModel } from "../checkpoint/load.ts";
import type { WeightScale } from "../checkpoint/scales/pair.ts";
import { type Piece, type Tensor, tensorKey } from "../core/checkpoint.ts";
import { countOf, type Shape, stridesOf, widthOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { roleSource } from "../core/gather.ts";
import { indexRuns } from "../core/mapping/layout.ts";
import type { Move } from "../core/mapping/moves.ts";
import type { Role } from "../families/model.ts";

/** Indices of each axis; undefined: all. */
type Kept = readonly (readonly number[] | undefined)[];

/** A role of the source whose weight was cut along the axes that have several scales. */
export interface CutWeight {
  /** the weight and its scales, in place of those of the source */
  readonly tensors: readonly Tensor[];
  readonly weight: string;
  readonly scale: WeightScale;
  /** of the role, from the weight */
  readonly moves: readonly Move[];
  /** the shape of the role along the axes that were cut here */
  readonly shape: Shape;
  /** what is left to cut */
  readonly kept: Kept;
}

const DECODE = "decode the source with `isologit recast SRC PLAIN --dtype bf16`, and prune PLAIN";

/**
 * The weight of a role, cut with its scales.
 *
 * @returns null for a weight without scales, or with one scale: its codes are cut as any elements are
 * @throws UNSUPPORTED for packed codes, for blocks of which a part would go, and for weights that hold several roles
 */
export function cutScaledWeight(source: LoadedModel, from: Role, kept: Kept): CutWeight | null {
  if (kept.every((indices) => indices === undefined)) return null;
  const moves = source.roleSources.get(from.key)!;
  const scaled = moves.map(({ of }) => source.tensors.get(of!)!).find((tensor) => hasScales(source, tensor));
  if (scaled === undefined) return null;
  const { name, dtype, stored, shape } = scaled;
  const scale = source.scales.scaleOf.get(name);
  const refuse = (why: string, next = DECODE): never => {
    throw new IsologitError("UNSUPPORTED", `it is ${dtype} with ${why}`, { tensor: name }, { next });
  };
  if (stored !== undefined || scale === undefined || scale.second !== undefined)
    return refuse("packed codes, and such weights cannot be cut");
  const isWhole =
    moves.length === 1 &&
    countOf(shape) === countOf(from.shape) &&
    source.holds.get(tensorKey(scaled))?.length === 1;
  if (!isWhole || shape.length !== 2)
    return refuse(`a scale for each ${scale.extent}, and holds more than one matrix: it cannot be cut`);
  const blocks = [0, 1].map((axis) => {
    const [side, indices] = [scale.block[axis]!, kept[axis]];
    if (indices === undefined || scale.grid[axis] === 1) return undefined;
    return (
      keptBlocks(indices, side, shape[axis]!) ??
      refuse(
        `a scale for each ${scale.block.join(" × ")} block, and the cut divides blocks of ${side} ${axis === 0 ? "rows" : "columns"}`,
      )
    );
  });
  const elements = blocks.map((list, axis) => (list === undefined ? undefined : kept[axis]));
  const weight = takenTensor(scaled, elements);
  const scales = takenScales(source.tensors.get(scale.tensor)!, blocks);
  const grid = blocks.map((list, axis) => list?.length ?? scale.grid[axis]!) as [number, number];
  const block = blocks.map((list, axis) => (list?.length === 1 ? weight.shape[axis]! : scale.block[axis]!));
  return {
    tensors: [weight, scales],
    weight: name,
    scale: { ...scale, grid, block: block as [number, number] },
    moves: roleSource(name, countOf(weight.shape), new Map()).moves,
    shape: weight.shape,
    kept: kept.map((indices, axis) => (blocks[axis] === undefined ? indices : undefined)),
  };
}

/** Packed codes, or scales of which some may go. */
function hasScales({ scales }: LoadedModel, { name, stored }: Tensor): boolean {
  const scale = scales.scaleOf.get(name);
  return stored !== undefined || (scale !== undefined && scale.extent !== "tensor");
}

/** The blocks that the indices fill; undefined if a part of a block would go. */
function keptBlocks(indices: readonly number[], side: number, size: number): readonly number[] | undefined {
  const blocks = [...new Set(indices.map((index) => Math.floor(index / side)))];
  const whole = blocks.flatMap((block) =>
    Array.from({ length: Math.min(side, size - block * side) }, (_, i) => block * side + i),
  );
  return whole.length === indices.length && whole.every((index, i) => index === indices[i])
    ? blocks
    : undefined;
}

/** The scales of blocks that stay: [O], [O, 1], [rows, columns] or [rows, 1, columns, 1]. */
function takenScales(tensor: Tensor, blocks: Kept): Tensor {
  const [rows, columns] = blocks;
  if (tensor.shape.length === 4) return takenTensor(tensor, [rows, undefined, columns, undefined]);
  return takenTensor(tensor, [rows, ...(tensor.shape.length > 1 ? [columns] : [])]);
}

/** A tensor of which some indices stay: each run of indices of each axis is cut out of each piece. */
function takenTensor(tensor: Tensor, kept: Kept): Tensor {
  let pieces = tensor.pieces;
  for (const [axis, indices] of kept.entries())
    if (indices !== undefined) pieces = pieces.flatMap((piece) => takenPieces(piece, axis, indices, tensor));
  return { ...tensor, shape: tensor.shape.map((size, axis) => kept[axis]?.length ?? size), pieces };
}

function takenPieces(
  piece: Piece,
  axis: number,
  indices: readonly number[],
  { dtype }: Tensor,
): readonly Piece[] {
  const strides = piece.strides ?? stridesOf(piece.shape);
  const [first, end] = [piece.start[axis]!, piece.start[axis]! + piece.shape[axis]!];
  let next = 0;
  return indexRuns(indices).flatMap(({ from, to }): Piece[] => {
    const at = next;
    next += to - from;
    const [lo, hi] = [Math.max(first, from), Math.min(end, to)];
    if (lo >= hi) return [];
    return [
      {
        file: piece.file,
        offset: piece.offset + (lo - first) * strides[axis]! * widthOf(dtype),
        start: piece.start.with(axis, at + lo - from),
        shape: piece.shape.with(axis, hi - lo),
        strides,
      },
    ];
  });
}
