/** Compares the codes of a band with the weights that they stand for, element by element. */
import type { FloatDType } from "../core/dtype.ts";
import { tableOf, widen } from "../core/float.ts";
import { type CodeDType, codeCheck } from "./code-bound.ts";
import type { Loss } from "./pool.ts";

interface BeyondBound {
  /** index of the first code beyond its bound, or -1 */
  readonly differsAt: number;
  /** codes that are not nearest, but within the bound */
  readonly notNearest: number;
  /** no value differs from its weight */
  readonly isExact: boolean;
}

/**
 * Examines the codes that differ from the nearest codes. Both zeros are one value.
 *
 * @param weights elements of `from`
 * @param nearest nearest codes
 * @param found   stored codes
 */
export function codesBeyond(
  weights: Uint8Array,
  { from, scale, sourceScale }: { from: FloatDType; scale: number | null; sourceScale: number | null },
  to: "F8_E4M3" | "F8_E5M2",
  nearest: Uint8Array,
  found: Uint8Array,
): BeyondBound {
  const { isWithin } = codeCheck(to);
  const [values, width] = [tableOf(to), weights.byteLength / found.byteLength];
  let [differsAt, notNearest] = [-1, 0];
  for (let i = 0; i < found.length; i++) {
    if (found[i] === nearest[i]) continue;
    const stored = widen(from, weights.slice(i * width, (i + 1) * width))[0]!;
    const weight = Math.fround(stored * (sourceScale ?? 1));
    const value = Math.fround(values[found[i]!]! * (scale ?? 1));
    if (values[found[i]!] === values[nearest[i]!]) continue;
    if (isWithin(weight, value, scale ?? 1)) notNearest++;
    else if (differsAt < 0) differsAt = i;
  }
  return { differsAt, notNearest, isExact: false };
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

/**
 * Examines decoded values.
 *
 * @param values code * scale of each element
 * @param scales the scale of each element
 * @param columns elements of a row, if rows are examined; else 0
 */
export function valuesBeyond(
  weights: Float32Array,
  values: Float32Array,
  scales: Float32Array,
  codes: CodeDType,
  columns: number,
): BeyondBound & { readonly loss: Loss } {
  const { isWithin, isNearest, leastNormal } = codeCheck(codes);
  let [differsAt, notNearest, nonzero, zeroed, coarse] = [-1, 0, 0, 0, 0];
  let isExact = true;
  const lost: number[] = [];
  let [lostInRow, keptInRow] = [0, 0];
  for (let i = 0; i < weights.length; i++) {
    const [weight, value, scale] = [weights[i]!, values[i]!, scales[i]!];
    isExact &&= weight === value;
    if (!isWithin(weight, value, scale)) differsAt = differsAt < 0 ? i : differsAt;
    else if (!isNearest(weight, value, scale)) notNearest++;
    if (weight !== 0) {
      nonzero++;
      if (value === 0) zeroed++;
      if (Math.abs(value) < leastNormal * scale) coarse++;
    }
    if (columns === 0) continue;
    if (value !== 0) keptInRow++;
    else if (weight !== 0) lostInRow++;
    if ((i + 1) % columns !== 0) continue;
    if (keptInRow === 0 && lostInRow > 0) lost.push(Math.floor(i / columns));
    [lostInRow, keptInRow] = [0, 0];
  }
  const rows = lost.length === 0 ? null : { count: lost.length, first: lost[0]!, last: lost.at(-1)! };
  return { differsAt, notNearest, isExact, loss: { nonzero, zeroed, coarse, rows } };
}
