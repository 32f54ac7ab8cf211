/** Compares the codes of a band with the weights that they stand for, element by element. */
import { type Cast, CLIPPED_FROM } from "../cast/cast.ts";
import { type FloatDType, isFp8, widthOf } from "../core/dtype.ts";
import { tableOf } from "../core/float.ts";
import type { CastError, Loss } from "./calls.ts";
import { type CodeDType, codeCheck } from "./code-bound.ts";

interface BeyondBound extends Pick<CastError, "notNearest" | "beyond"> {
  /** index of the first element beyond its bound, or -1 */
  readonly differsAt: number;
}

/**
 * Examines the elements that differ from the nearest ones. Both zeros are one value. Numbers wider than FP8 have no bound, so
 * all that differ are beyond it.
 *
 * @param weights elements of `from`
 * @param nearest the correct cast
 * @param found   stored elements of `to`
 * @returns       `zeroed`: how many more weights became 0 than in the correct cast
 */
export function examineDifferences(
  weights: Uint8Array,
  { from, to, scale, sourceScale }: Cast,
  nearest: Uint8Array,
  found: Uint8Array,
): BeyondBound & Pick<Loss, "zeroed"> {
  const isWithin = isFp8(to) ? codeCheck(to).isWithin : () => false;
  const [weightAt, nearestAt, foundAt] = [
    elementsOf(from, weights),
    elementsOf(to, nearest),
    elementsOf(to, found),
  ];
  const count = found.length / widthOf(to);
  let [differsAt, notNearest, beyond, zeroed] = [-1, 0, 0, 0];
  for (let i = 0; i < count; i++) {
    const [code, best] = [foundAt(i), nearestAt(i)];
    if (code === best || (Number.isNaN(code) && Number.isNaN(best))) continue;
    const weight = Math.fround(weightAt(i) * (sourceScale ?? 1));
    if (weight !== 0) zeroed += Number(code === 0) - Number(best === 0);
    if (isWithin(weight, Math.fround(code * (scale ?? 1)), scale ?? 1)) notNearest++;
    else if (beyond++ === 0) differsAt = i;
  }
  return { differsAt, notNearest, beyond, zeroed };
}

/** Whether the value of every code is its weight. */
export function areExact(
  weights: Float32Array,
  to: "F8_E4M3" | "F8_E5M2",
  scale: number,
  codes: Uint8Array,
): boolean {
  const values = tableOf(to);
  return codes.every((code, i) => Math.fround(values[code]! * scale) === weights[i]);
}

/** Reads single elements as F32 values, without scales. */
function elementsOf(dtype: FloatDType, bytes: Uint8Array): (index: number) => number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (dtype === "F32") return (index) => view.getFloat32(4 * index, true);
  const table = tableOf(dtype);
  return widthOf(dtype) === 1
    ? (index) => table[bytes[index]!]!
    : (index) => table[view.getUint16(2 * index, true)]!;
}

/**
 * Examines decoded values.
 *
 * @param values code * scale of each element
 * @param scales the scale of each element
 * @param clips  weights beyond the largest code may stand as that code
 */
export function valuesBeyond(
  weights: Float32Array,
  values: Float32Array,
  scales: Float32Array,
  codes: CodeDType,
  clips: boolean,
): BeyondBound & Pick<CastError, "isExact" | "loss"> {
  const { isWithin, isClipped, isNearest, leastNormal } = codeCheck(codes);
  const clippedFrom = CLIPPED_FROM[codes];
  let [differsAt, notNearest, beyond, nonzero, zeroed, coarse, clipped] = [-1, 0, 0, 0, 0, 0, 0];
  let isExact = true;
  for (let i = 0; i < weights.length; i++) {
    const [weight, value, scale] = [weights[i]!, values[i]!, scales[i]!];
    isExact &&= weight === value;
    if (!isWithin(weight, value, scale)) {
      if (!(clips && isClipped(weight, value, scale)) && beyond++ === 0) differsAt = i;
      if (Math.fround(Math.abs(weight) / scale) >= clippedFrom) clipped++; // within the bound, nothing is clipped
    } else if (!isNearest(weight, value, scale)) notNearest++;
    if (weight !== 0) {
      nonzero++;
      if (value === 0) zeroed++;
      if (Math.abs(value) < leastNormal * scale) coarse++;
    }
  }
  return { differsAt, notNearest, beyond, isExact, loss: { nonzero, zeroed, coarse, clipped } };
}
