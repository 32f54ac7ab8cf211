/** Checks that boxes fill a tensor exactly: no hole, no overlap, nothing outside. */
import { countOf, type Shape } from "../../src/core/dtype.ts";
import { type ErrorLocation, IsologitError } from "../../src/core/errors.ts";

export interface Box {
  readonly start: Shape;
  readonly shape: Shape;
}

/** A tensor is cut into at most experts times ranks boxes. Boxes with common rows are compared in pairs. */
const MAX_BOXES = 16_384;

/** @throws SPAN_INVALID with the first wrong box, LIMIT_EXCEEDED */
export function refuseGaps(shape: Shape, boxes: readonly Box[], at: ErrorLocation): void {
  if (boxes.length > MAX_BOXES) {
    throw new IsologitError("LIMIT_EXCEEDED", `${boxes.length} pieces; at most ${MAX_BOXES} are read`, at);
  }
  let held = 0;
  for (const box of boxes) {
    if (!isInside(box, shape)) throw fault(`a piece ${text(box)} does not lie in [${shape.join(", ")}]`, at);
    held += countOf(box.shape, at);
  }
  const sorted = boxes.toSorted((a, b) => (a.start[0] ?? 0) - (b.start[0] ?? 0));
  let open: Box[] = []; // boxes whose rows continue in the rows ahead
  for (const box of sorted) {
    open = open.filter((other) => overlaps(other, box, 0));
    const twice = open.find((other) => shape.every((_, axis) => overlaps(other, box, axis)));
    if (twice !== undefined) throw fault(`the pieces ${text(twice)} and ${text(box)} overlap`, at);
    open.push(box);
  }
  const count = countOf(shape, at);
  if (held !== count) throw fault(`its pieces hold ${held} of [${shape.join(", ")}]'s ${count} elements`, at);
}

function isInside({ start, shape: size }: Box, shape: Shape): boolean {
  return (
    start.length === shape.length &&
    size.length === shape.length &&
    shape.every((n, axis) => start[axis]! + size[axis]! <= n)
  );
}

function overlaps(a: Box, b: Box, axis: number): boolean {
  if (a.start.length === 0) return true; // both are the single element of a scalar
  const [from, until] = [a.start[axis]!, a.start[axis]! + a.shape[axis]!];
  return from < b.start[axis]! + b.shape[axis]! && b.start[axis]! < until;
}

function text({ start, shape }: Box): string {
  return `[${shape.join(", ")}] at [${start.join(", ")}]`;
}

function fault(message: string, at: ErrorLocation): IsologitError {
  return new IsologitError("SPAN_INVALID", message, at);
}
