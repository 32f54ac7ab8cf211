/**
 * Moves: copies of strided boxes between tensors, whose elements are numbered in C order. Here are their inverse, the runs
 * of elements that they copy, a check that they fill a tensor exactly once, and the operations that layouts need.
 */

/** Copies element `fromAt + i·from` of `of` to element `toAt + i·to`, for each index i below `size`. */
export interface Move {
  /** the tensor that is read; null: zeros */
  readonly of: string | null;
  readonly size: readonly number[];
  readonly fromAt: number;
  readonly from: readonly number[];
  readonly toAt: number;
  readonly to: readonly number[];
}

/** The inverse: for each tensor that `moves` read, moves that read it back from `whole`. Padding is dropped. */
export function invertMoves(moves: readonly Move[], whole: string): ReadonlyMap<string, readonly Move[]> {
  const inverse = new Map<string, Move[]>();
  for (const { of, size, fromAt, from, toAt, to } of moves) {
    if (of === null) continue;
    const list = inverse.get(of) ?? [];
    inverse.set(of, list);
    list.push(...boxMove({ of: whole, size, fromAt: toAt, from: to, toAt: fromAt, to: from }));
  }
  return inverse;
}

/** Number of elements that a move copies. */
export function countOfMove(move: Move): number {
  return move.size.reduce((a, b) => a * b, 1);
}

/** A run of elements that is contiguous on both sides. */
export interface ElementRun {
  readonly of: string | null;
  readonly from: number;
  readonly to: number;
  readonly count: number;
}

/** The runs that fill elements [lo, hi) of the destination, in the order of the moves. */
export function* runsOf(moves: readonly Move[], lo: number, hi: number): Generator<ElementRun> {
  for (const move of moves) yield* runsOfMove(move, 0, move.fromAt, move.toAt, lo, hi);
}

function* runsOfMove(
  move: Move,
  axis: number,
  from: number,
  to: number,
  lo: number,
  hi: number,
): Generator<ElementRun> {
  const size = move.size[axis] ?? 1;
  const [fromStride, toStride] = [move.from[axis] ?? 1, move.to[axis] ?? 1];
  if (axis >= move.size.length - 1 && toStride === 1 && (fromStride === 1 || move.of === null)) {
    const first = Math.max(0, lo - to);
    const last = Math.min(size, hi - to);
    if (first < last)
      yield { of: move.of, from: from + first * fromStride, to: to + first, count: last - first };
    return;
  }
  // Inner dimensions extend `reach` elements beyond the address of an index: only the indices below touch [lo, hi).
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

/** Whether `moves` fill each of the elements [0, count) exactly once; if not, the first fault. */
type Cover =
  | { readonly ok: true }
  | { readonly ok: false; readonly at: number; readonly fault: "missing" | "twice" | "outside" };

/** Finds the lowest element that `moves` do not fill exactly once. */
export function findCoverFault(moves: readonly Move[], count: number): Cover {
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
 * The same box in normal form: dimensions of size 1 dropped, the others ordered outermost first at the destination, and
 * neighbours joined if they form one run. An empty box gives no move.
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
export function splitMove(move: Move, block: number): Move[] {
  const low = move.size.map((_, i) => i).filter((i) => move.to[i]! % block !== 0);
  const start = move.toAt % block;
  const span = (axes: readonly number[]) =>
    axes.reduce((sum, i) => sum + (move.size[i]! - 1) * move.to[i]!, 0);
  if (start + span(low) < block) return [move];
  const axis = low.reduce((a, b) => (move.to[b]! > move.to[a]! ? b : a));
  const [size, step] = [move.size[axis]!, move.to[axis]!];
  const fits = block % step === 0 && (start % step) + span(low.filter((i) => i !== axis)) < step;
  if (!fits)
    return Array.from({ length: size }, (_, i) => part(move, axis, i, i + 1)).flatMap((m) =>
      splitMove(m, block),
    );
  const perBlock = block / step;
  const head = Math.min(size, perBlock - Math.floor(start / step));
  if (head < perBlock) return [part(move, axis, 0, head), ...splitMove(part(move, axis, head, size), block)];
  const blocks = Math.floor(size / perBlock);
  const whole = {
    ...move,
    size: move.size.toSpliced(axis, 1, blocks, perBlock),
    from: move.from.toSpliced(axis, 1, perBlock * move.from[axis]!, move.from[axis]!),
    to: move.to.toSpliced(axis, 1, block, step),
  };
  return blocks * perBlock === size ? [whole] : [whole, part(move, axis, blocks * perBlock, size)];
}

/** Indices [first, last) of one dimension. The dimension is dropped if one index is left. */
function part(move: Move, axis: number, first: number, last: number): Move {
  const axes = last - first === 1 ? [] : [axis];
  return {
    ...move,
    size: move.size.toSpliced(axis, 1, ...axes.map(() => last - first)),
    from: move.from.toSpliced(axis, 1, ...axes.map(() => move.from[axis]!)),
    to: move.to.toSpliced(axis, 1, ...axes.map(() => move.to[axis]!)),
    fromAt: move.fromAt + first * move.from[axis]!,
    toAt: move.toAt + first * move.to[axis]!,
  };
}

/** The part of a move, split at `inner` and `block`, that lies in [from, to) of each block. Both are multiples of `inner`. */
export function clipMove(move: Move, inner: number, block: number, from: number, to: number): Move[] {
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
  const middle = last > first ? [part(move, axis, first, last)] : [];
  if (rest === 0) return middle;
  const edges = [...Array(first).keys(), ...Array.from({ length: size - last }, (_, i) => last + i)];
  return [...middle, ...edges.flatMap((i) => clipMove(part(move, axis, i, i + 1), inner, block, from, to))];
}

/** Spreads blocks of `block` destination elements to a distance of `next` elements, and shifts all by `shift`. */
export function restrideMoves(move: Move, block: number, next: number, shift: number): Move[] {
  return splitMove(move, block).flatMap((m) =>
    boxMove({
      ...m,
      toAt: Math.floor(m.toAt / block) * next + (m.toAt % block) + shift,
      to: m.to.map((step) => (step % block === 0 ? (step / block) * next : step)),
    }),
  );
}
