/**
 * The algebra of layouts: a stored tensor said as an expression over other tensors. An expression compiles to
 * moves, strided boxes between flat C-order element spaces; the inverse swaps the two sides of each move.
 */
import { countOf, type Shape, sameShape, stridesOf } from "./dtype.ts";
import { IsologitError } from "./errors.ts";

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
  /** zero rows below, to this many; the inverse drops them */
  | { readonly op: "pad"; readonly of: Layout; readonly rows: number }
  | { readonly op: "reshape"; readonly of: Layout; readonly shape: Shape }
  | { readonly op: "transpose"; readonly of: Layout; readonly axes: readonly number[] };

/** Elements of `of` at `fromAt + i·from` lie at `toAt + i·to`, for each index i below `size`. Units: elements. */
export interface Move {
  /** the tensor moved from; null moves zeros */
  readonly of: string | null;
  readonly size: readonly number[];
  readonly fromAt: number;
  readonly from: readonly number[];
  readonly toAt: number;
  readonly to: readonly number[];
}

export const leaf = (of: string, shape: Shape): Layout => ({ op: "leaf", of, shape });
export const slice = (of: Layout, axis: number, from: number, to: number): Layout => ({
  op: "slice",
  of,
  axis,
  from,
  to,
});
export const concat = (axis: number, parts: readonly Layout[]): Layout => ({ op: "concat", axis, parts });

export const pad = (of: Layout, rows: number): Layout => ({ op: "pad", of, rows });
export const reshape = (of: Layout, shape: Shape): Layout => ({ op: "reshape", of, shape });

/** @throws INTERNAL for an expression that has no meaning: layouts are written by us, never read from a file */
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

/** The moves that build `layout` from its leaves; their destinations tile it, each element once. */
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
        return movesOf(part).flatMap((move) => restride(move, block, shape[layout.axis]! * inner, shift));
      });
    }
    case "slice": {
      const whole = shapeOf(layout.of);
      const inner = stridesOf(whole)[layout.axis]!;
      const block = whole[layout.axis]! * inner;
      return movesOf(layout.of)
        .flatMap((move) => split(move, inner))
        .flatMap((move) => split(move, block))
        .flatMap((move) => clip(move, inner, block, layout.from * inner, layout.to * inner))
        .flatMap((move) => restride(move, block, (layout.to - layout.from) * inner, -layout.from * inner));
    }
    case "transpose": {
      const before = stridesOf(shapeOf(layout.of));
      const after = stridesOf(shape);
      // Axis i of the operand becomes axis position[i]; a stride belongs to the innermost axis not above it.
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
        .reduceRight((moves, stride) => moves.flatMap((move) => split(move, stride)), movesOf(layout.of))
        .flatMap((move) => boxMove({ ...move, toAt: moved(move.toAt), to: move.to.map(moved) }));
    }
    default:
      return layout satisfies never;
  }
}

/** The same boxes seen from the other side: what each leaf is, as moves from `whole`. Padding is dropped. */
export function invert(moves: readonly Move[], whole: string): ReadonlyMap<string, readonly Move[]> {
  const inverse = new Map<string, Move[]>();
  for (const { of, size, fromAt, from, toAt, to } of moves) {
    if (of === null) continue;
    const list = inverse.get(of) ?? [];
    inverse.set(of, list);
    list.push(...boxMove({ of: whole, size, fromAt: toAt, from: to, toAt: fromAt, to: from }));
  }
  return inverse;
}

/** Elements that a move places. */
export function countOfMove(move: Move): number {
  return move.size.reduce((a, b) => a * b, 1);
}

/** A contiguous run of elements on both sides. */
export interface Run {
  readonly of: string | null;
  readonly from: number;
  readonly to: number;
  readonly count: number;
}

/** The runs that fill elements [lo, hi) of the destination, in the order of the moves. */
export function* runsOf(moves: readonly Move[], lo: number, hi: number): Generator<Run> {
  for (const move of moves) yield* runsOfMove(move, 0, move.fromAt, move.toAt, lo, hi);
}

function* runsOfMove(
  move: Move,
  axis: number,
  from: number,
  to: number,
  lo: number,
  hi: number,
): Generator<Run> {
  const size = move.size[axis] ?? 1;
  const [fromStride, toStride] = [move.from[axis] ?? 1, move.to[axis] ?? 1];
  if (axis >= move.size.length - 1 && toStride === 1 && (fromStride === 1 || move.of === null)) {
    const first = Math.max(0, lo - to);
    const last = Math.min(size, hi - to);
    if (first < last)
      yield { of: move.of, from: from + first * fromStride, to: to + first, count: last - first };
    return;
  }
  // Inner dimensions reach `reach` elements beyond an index's own address: only these indices touch [lo, hi).
  let reach = 0;
  for (let j = axis + 1; j < move.size.length; j++) reach += (move.size[j]! - 1) * move.to[j]!;
  const first = Math.max(0, Math.ceil((lo - to - reach) / toStride));
  const last = Math.min(size, Math.ceil((hi - to) / toStride));
  for (let i = first; i < last; i++) {
    const [f, t] = [from + i * fromStride, to + i * toStride];
    if (axis < move.size.length - 1) yield* runsOfMove(move, axis + 1, f, t, lo, hi);
    else yield { of: move.of, from: f, to: t, count: 1 };
  }
}

/** How often elements [0, count) are placed by `moves`: once each, or what is wrong. */
export type Cover =
  | { readonly ok: true }
  | { readonly ok: false; readonly at: number; readonly fault: "missing" | "twice" | "outside" };

/** @returns the lowest element that is not placed exactly once */
export function cover(moves: readonly Move[], count: number): Cover {
  const spans: [number, number][] = [];
  for (const run of runsOf(moves, -Infinity, Infinity)) spans.push([run.to, run.to + run.count]);
  spans.sort((a, b) => a[0] - b[0]);
  let at = 0;
  for (const [from, to] of spans) {
    if (from > at) return { ok: false, at, fault: "missing" };
    if (from < at) return { ok: false, at: from, fault: from < 0 ? "outside" : "twice" };
    at = to;
  }
  if (at > count) return { ok: false, at: count, fault: "outside" };
  return at < count ? { ok: false, at, fault: "missing" } : { ok: true };
}

/**
 * Any box in the form that queries understand: dimensions of one dropped, the rest outermost first at the
 * destination, those that are one run joined. An empty box is no move.
 */
export function boxMove(move: Move): Move[] {
  if (move.size.includes(0)) return [];
  const dims = move.size
    .map((size, i) => ({ size, from: move.from[i]!, to: move.to[i]! }))
    .filter((dim) => dim.size > 1)
    .sort((a, b) => b.to - a.to);
  const joined: typeof dims = [];
  for (const dim of dims.reverse()) {
    const inner = joined[0];
    if (inner && dim.to === inner.to * inner.size && dim.from === inner.from * inner.size) {
      joined[0] = { ...inner, size: inner.size * dim.size };
    } else joined.unshift(dim);
  }
  return [
    {
      ...move,
      size: joined.map((d) => d.size),
      from: joined.map((d) => d.from),
      to: joined.map((d) => d.to),
    },
  ];
}

/**
 * Cuts a move so that each of its dimensions either steps by whole blocks of `block` destination elements or
 * stays within one block.
 */
function split(move: Move, block: number): Move[] {
  const low = move.size.map((_, i) => i).filter((i) => move.to[i]! % block !== 0);
  const start = move.toAt % block;
  const span = (axes: readonly number[]) =>
    axes.reduce((sum, i) => sum + (move.size[i]! - 1) * move.to[i]!, 0);
  if (start + span(low) < block) return [move];
  const axis = low.reduce((a, b) => (move.to[b]! > move.to[a]! ? b : a));
  const [size, step] = [move.size[axis]!, move.to[axis]!];
  const fits = block % step === 0 && (start % step) + span(low.filter((i) => i !== axis)) < step;
  if (!fits)
    return Array.from({ length: size }, (_, i) => part(move, axis, i, i + 1)).flatMap((m) => split(m, block));
  const perBlock = block / step;
  const head = Math.min(size, perBlock - Math.floor(start / step));
  if (head < perBlock) return [part(move, axis, 0, head), ...split(part(move, axis, head, size), block)];
  const blocks = Math.floor(size / perBlock);
  const whole = {
    ...move,
    size: move.size.toSpliced(axis, 1, blocks, perBlock),
    from: move.from.toSpliced(axis, 1, perBlock * move.from[axis]!, move.from[axis]!),
    to: move.to.toSpliced(axis, 1, block, step),
  };
  return blocks * perBlock === size ? [whole] : [whole, part(move, axis, blocks * perBlock, size)];
}

/** Indices [first, last) of one dimension, which is dropped when one index is left. */
function part(move: Move, axis: number, first: number, last: number): Move {
  const kept = last - first === 1 ? [] : [axis];
  return {
    ...move,
    size: move.size.toSpliced(axis, 1, ...kept.map(() => last - first)),
    from: move.from.toSpliced(axis, 1, ...kept.map(() => move.from[axis]!)),
    to: move.to.toSpliced(axis, 1, ...kept.map(() => move.to[axis]!)),
    fromAt: move.fromAt + first * move.from[axis]!,
    toAt: move.toAt + first * move.to[axis]!,
  };
}

/** Of a move split at `inner` and `block`, what lies at [from, to) within each block; multiples of `inner`. */
function clip(move: Move, inner: number, block: number, from: number, to: number): Move[] {
  const within = move.size
    .map((_, i) => i)
    .filter((i) => move.to[i]! % block !== 0 && move.to[i]! % inner === 0);
  const start = Math.floor((move.toAt % block) / inner) * inner;
  const reach = within.reduce((sum, i) => sum + (move.size[i]! - 1) * move.to[i]!, 0);
  if (start >= to || start + reach < from) return [];
  if (start >= from && start + reach < to) return [move];
  const axis = within.reduce((a, b) => (move.to[b]! > move.to[a]! ? b : a));
  const [size, step] = [move.size[axis]!, move.to[axis]!];
  const rest = reach - (size - 1) * step;
  const first = Math.min(size, Math.max(0, Math.ceil((from - start) / step)));
  const last = Math.min(size, Math.max(first, Math.floor((to - inner - rest - start) / step) + 1));
  const edges = [...Array(first).keys(), ...Array.from({ length: size - last }, (_, i) => last + i)];
  return [
    ...(last > first ? [part(move, axis, first, last)] : []),
    ...(rest > 0 ? edges.flatMap((i) => clip(part(move, axis, i, i + 1), inner, block, from, to)) : []),
  ];
}

/** Blocks of `block` destination elements become blocks of `next`, each starting `shift` elements later. */
function restride(move: Move, block: number, next: number, shift: number): Move[] {
  return split(move, block).flatMap((m) =>
    boxMove({
      ...m,
      toAt: Math.floor(m.toAt / block) * next + (m.toAt % block) + shift,
      to: m.to.map((step) => (step % block === 0 ? (step / block) * next : step)),
    }),
  );
}
