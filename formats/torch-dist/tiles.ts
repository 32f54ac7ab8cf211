/** Boxes that must fill a tensor exactly: no hole, no overlap, nothing outside. */
import { countOf, type Shape } from "../../src/core/dtype.ts";
import { IsologitError, type Place } from "../../src/core/errors.ts";

export interface Box {
  readonly origin: Shape;
  readonly shape: Shape;
}

/** A tensor is cut by experts times ranks; boxes are compared pairwise where their rows meet. */
const MAX_BOXES = 16_384;

/** @throws SPAN_INVALID naming the first box at fault, LIMIT_EXCEEDED */
export function refuseUntiled(shape: Shape, boxes: readonly Box[], at: Place): void {
  if (boxes.length > MAX_BOXES) {
    throw new IsologitError("LIMIT_EXCEEDED", `${boxes.length} pieces; at most ${MAX_BOXES} are read`, at);
  }
  let held = 0;
  for (const box of boxes) {
    if (!isInside(box, shape)) throw fault(`a piece ${text(box)} does not lie in [${shape.join(", ")}]`, at);
    held += countOf(box.shape, at);
  }
  const sorted = boxes.toSorted((a, b) => (a.origin[0] ?? 0) - (b.origin[0] ?? 0));
  let open: Box[] = []; // those whose rows reach into the rows ahead
  for (const box of sorted) {
    open = open.filter((other) => overlaps(other, box, 0));
    const twice = open.find((other) => shape.every((_, axis) => overlaps(other, box, axis)));
    if (twice !== undefined) throw fault(`the pieces ${text(twice)} and ${text(box)} overlap`, at);
    open.push(box);
  }
  const count = countOf(shape, at);
  if (held !== count) throw fault(`its pieces hold ${held} of [${shape.join(", ")}]'s ${count} elements`, at);
}

function isInside({ origin, shape: size }: Box, shape: Shape): boolean {
  return (
    origin.length === shape.length &&
    size.length === shape.length &&
    shape.every((n, axis) => origin[axis]! + size[axis]! <= n)
  );
}

function overlaps(a: Box, b: Box, axis: number): boolean {
  if (a.origin.length === 0) return true; // both are the one element of a scalar
  const [from, until] = [a.origin[axis]!, a.origin[axis]! + a.shape[axis]!];
  return from < b.origin[axis]! + b.shape[axis]! && b.origin[axis]! < until;
}

function text({ origin, shape }: Box): string {
  return `[${shape.join(", ")}] at [${origin.join(", ")}]`;
}

function fault(message: string, at: Place): IsologitError {
  return new IsologitError("SPAN_INVALID", message, at);
}
