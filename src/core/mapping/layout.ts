/** Layouts: a stored tensor written as an expression over other tensors. A layout compiles to moves. */
import { countOf, type Shape, sameShape, stridesOf } from "../dtype.ts";
import { IsologitError } from "../errors.ts";
import { boxMove, clipMove, type Move, restrideMoves, splitMove } from "./moves.ts";

export type Layout =
  | { readonly op: "leaf"; readonly of: string; readonly shape: Shape }
  | {
      readonly op: "slice";
      readonly of: Layout;
      readonly axis: number;
      readonly from: number;
      readonly to: number;
    }
  | { readonly op: "concat"; readonly axis: number; readonly parts: readonly Layout[] }
  /** these indices of one axis, in ascending order; the others are left out, so it has no inverse */
  | {
      readonly op: "take";
      readonly of: Layout;
      readonly axis: number;
      readonly indices: readonly number[];
    }
  /** rows of zeros at the end, up to `rows` in all; the inverse drops them */
  | { readonly op: "pad"; readonly of: Layout; readonly rows: number }
  | { readonly op: "reshape"; readonly of: Layout; readonly shape: Shape }
  | { readonly op: "transpose"; readonly of: Layout; readonly axes: readonly number[] };

export const leaf = (of: string, shape: Shape): Layout => ({ op: "leaf", of, shape });
export const slice = (of: Layout, axis: number, from: number, to: number): Layout => ({
  op: "slice",
  of,
  axis,
  from,
  to,
});
export const concat = (axis: number, parts: readonly Layout[]): Layout => ({ op: "concat", axis, parts });
export const take = (of: Layout, axis: number, indices: readonly number[]): Layout => ({
  op: "take",
  of,
  axis,
  indices,
});

export const pad = (of: Layout, rows: number): Layout => ({ op: "pad", of, rows });
export const reshape = (of: Layout, shape: Shape): Layout => ({ op: "reshape", of, shape });
/** Axis i of the result is axis `axes[i]` of the operand. */
export const transpose = (of: Layout, axes: readonly number[]): Layout => ({ op: "transpose", of, axes });

/** @throws INTERNAL for an impossible expression: layouts come from our own code, never from a file */
export function shapeOf(layout: Layout): Shape {
  switch (layout.op) {
    case "leaf":
      return layout.shape;
    case "slice": {
      const shape = shapeOf(layout.of);
      const { axis, from, to } = layout;
      if (!(0 <= from && from <= to && to <= (shape[axis] ?? -1))) refuse(layout, shape);
      return shape.with(axis, to - from);
    }
    case "concat": {
      const [first, ...rest] = layout.parts.map(shapeOf);
      if (first?.[layout.axis] === undefined) return refuse(layout, first ?? []);
      for (const shape of rest) {
        if (!sameShape(shape.with(layout.axis, 0), first.with(layout.axis, 0))) refuse(layout, shape);
      }
      return first.with(
        layout.axis,
        rest.reduce((sum, shape) => sum + shape[layout.axis]!, first[layout.axis]!),
      );
    }
    case "take": {
      const shape = shapeOf(layout.of);
      const { axis, indices } = layout;
      const isAscending = indices.every(
        (index, i) => Number.isInteger(index) && index > (indices[i - 1] ?? -1),
      );
      if (!isAscending || !((indices.at(-1) ?? -1) < (shape[axis] ?? -1))) refuse(layout, shape);
      return shape.with(axis, indices.length);
    }
    case "pad": {
      const shape = shapeOf(layout.of);
      if (!(layout.rows >= (shape[0] ?? Infinity))) refuse(layout, shape);
      return shape.with(0, layout.rows);
    }
    case "reshape": {
      const shape = shapeOf(layout.of);
      if (countOf(shape) !== countOf(layout.shape)) refuse(layout, shape);
      return layout.shape;
    }
    case "transpose": {
      const shape = shapeOf(layout.of);
      if (
        !sameShape(
          [...layout.axes].sort((a, b) => a - b),
          shape.map((_, i) => i),
        )
      )
        refuse(layout, shape);
      return layout.axes.map((axis) => shape[axis]!);
    }
    default:
      return layout satisfies never;
  }
}

function refuse(layout: Layout, shape: Shape): never {
  throw new IsologitError("INTERNAL", `${layout.op} does not fit a tensor of shape [${shape.join(", ")}]`);
}

/** The moves that build `layout` from its leaves. Their destinations cover each element exactly once. */
export function movesOf(layout: Layout): readonly Move[] {
  const shape = shapeOf(layout);
  switch (layout.op) {
    case "leaf":
      return boxMove({
        of: layout.of,
        size: shape,
        fromAt: 0,
        from: stridesOf(shape),
        toAt: 0,
        to: stridesOf(shape),
      });
    case "reshape": // flat order is the same
      return movesOf(layout.of);
    case "pad": {
      const from = countOf(shapeOf(layout.of));
      const zeros = { of: null, size: [countOf(shape) - from], fromAt: 0, from: [0], toAt: from, to: [1] };
      return [...movesOf(layout.of), ...boxMove(zeros)];
    }
    case "concat": {
      const inner = stridesOf(shape)[layout.axis]!;
      let at = 0;
      return layout.parts.flatMap((part) => {
        const block = shapeOf(part)[layout.axis]! * inner;
        const shift = at;
        at += block;
        return movesOf(part).flatMap((move) =>
          restrideMoves(move, block, shape[layout.axis]! * inner, shift),
        );
      });
    }
    case "slice":
      return takeMoves(movesOf(layout.of), shapeOf(layout.of), layout.axis, [layout]);
    case "take": {
      const runs = indexRuns(layout.indices);
      return takeMoves(movesOf(layout.of), shapeOf(layout.of), layout.axis, runs);
    }
    case "transpose": {
      const before = stridesOf(shapeOf(layout.of));
      const after = stridesOf(shape);
      // Axis i of the operand becomes axis position[i]. A stride belongs to the first axis whose own stride is not larger.
      const position = before.map((_, axis) => layout.axes.indexOf(axis));
      const moved = (flat: number) => {
        let rest = flat;
        return before.reduce((sum, stride, axis) => {
          const index = Math.floor(rest / stride);
          rest -= index * stride;
          return sum + index * after[position[axis]!]!;
        }, 0);
      };
      return before
        .reduceRight((moves, stride) => moves.flatMap((move) => splitMove(move, stride)), movesOf(layout.of))
        .flatMap((move) => boxMove({ ...move, toAt: moved(move.toAt), to: move.to.map(moved) }));
    }
    default:
      return layout satisfies never;
  }
}

/** The layout with other layouts of the same shapes in place of some leaves. */
export function replaceLeaves(layout: Layout, by: ReadonlyMap<string, Layout>): Layout {
  if (layout.op === "leaf") return by.get(layout.of) ?? layout;
  if (layout.op === "concat")
    return { ...layout, parts: layout.parts.map((part) => replaceLeaves(part, by)) };
  return { ...layout, of: replaceLeaves(layout.of, by) };
}

/** Indices [from, to). */
interface IndexRun {
  readonly from: number;
  readonly to: number;
}

/** Ascending indices as runs of consecutive ones. */
export function indexRuns(indices: readonly number[]): readonly IndexRun[] {
  const runs: { from: number; to: number }[] = [];
  for (const index of indices) {
    const last = runs.at(-1);
    if (last?.to === index) last.to++;
    else runs.push({ from: index, to: index + 1 });
  }
  return runs;
}

/**
 * The moves that build some indices of one axis, one run after the other, from the moves that build the whole.
 *
 * @param whole shape of the whole
 */
export function takeMoves(
  moves: readonly Move[],
  whole: Shape,
  axis: number,
  runs: readonly IndexRun[],
): readonly Move[] {
  const inner = stridesOf(whole)[axis]!;
  const block = whole[axis]! * inner;
  const next = runs.reduce((sum, { from, to }) => sum + to - from, 0) * inner;
  const split = moves.flatMap((move) => splitMove(move, inner)).flatMap((move) => splitMove(move, block));
  let at = 0;
  return runs.flatMap(({ from, to }) => {
    const shift = (at - from) * inner;
    at += to - from;
    return split
      .flatMap((move) => clipMove(move, inner, block, from * inner, to * inner))
      .flatMap((move) => restrideMoves(move, block, next, shift));
  });
}
