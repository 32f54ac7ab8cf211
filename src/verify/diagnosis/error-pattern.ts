/** Finds the pattern of an error in a tensor: zeroed, permuted, shifted, transposed, scaled, negated, or other. */
import { createHash } from "node:crypto";
import type { Shape } from "../../core/dtype.ts";

export interface ErrorPattern {
  readonly kind:
    | "none"
    | "zeroed"
    | "few"
    | "permuted"
    | "shifted"
    | "transposed"
    | "scaled"
    | "negated"
    | "other";
  /** description for the report */
  readonly text: string;
  /** 0 to 1: higher where more of the tensor is wrong or where one mistake explains all of the error */
  readonly suspicion: number;
}

interface TensorPair {
  /** the correct elements */
  readonly expected: Uint8Array;
  /** the elements of the destination */
  readonly found: Uint8Array;
  /** bytes of an element */
  readonly width: number;
  readonly shape: Shape;
  /** the same elements as numbers, scales applied; null where they are not floats */
  readonly values: { readonly expected: Float32Array; readonly found: Float32Array } | null;
}

/** Up to this number of wrong elements is damage, not a mistake of a mapping. */
const FEW = 8;
/** Largest relative error of a scaled copy after rounding: FP8 codes under a wrong scale differ by up to 2^-4 of their value. */
const ROUNDED = 0.04;

/** Finds the pattern of the error between two versions of a tensor. */
export function findErrorPattern(pair: TensorPair): ErrorPattern {
  const { expected, found, width } = pair;
  const count = expected.byteLength / width;
  const wrong: number[] = [];
  let zeros = 0;
  let wrongCount = 0;
  for (let i = 0; i < count; i++) {
    if (sameElement(expected, found, i, i, width)) continue;
    wrongCount++;
    if (wrong.length <= FEW) wrong.push(i);
    if (isZero(found, i, width)) zeros++;
  }
  if (wrongCount === 0) return { kind: "none", text: "its elements are right", suspicion: 0.2 };
  const all = (kind: ErrorPattern["kind"], text: string): ErrorPattern => ({ kind, text, suspicion: 1 });
  if (zeros === wrongCount && wrongCount > FEW) {
    const share =
      wrongCount + zerosAmong(expected, width) >= count ? "all of it" : `${wrongCount} of ${count} elements`;
    return all("zeroed", `zeroed: ${share}`);
  }
  if (wrongCount <= FEW) {
    return {
      kind: "few",
      text: `${wrongCount} of ${count} elements differ, the first at ${wrong[0]}`,
      suspicion: 0.3,
    };
  }
  return findMove(pair) ?? findScaling(pair) ?? describeOther(pair, wrongCount / count);
}

function findMove(pair: TensorPair): ErrorPattern | null {
  const { expected, found, width, shape } = pair;
  const rows = shape[0] ?? 1;
  const columns = expected.byteLength / width / rows;
  const byRow = permutation(hashes(expected, rows), hashes(found, rows));
  if (byRow !== null) return describePermutation("rows", byRow);
  if (columns > 1) {
    const turn = (bytes: Uint8Array) => hashes(transpose(bytes, rows, columns, width), columns);
    const byColumn = permutation(turn(expected), turn(found));
    if (byColumn !== null) return describePermutation("columns", byColumn);
    for (const [r, c] of [
      [rows, columns],
      [columns, rows],
    ] as const) {
      if (Buffer.from(transpose(expected, r, c, width)).equals(found)) {
        return { kind: "transposed", text: "transposed", suspicion: 1 };
      }
    }
  }
  for (const by of [1, -1, 2, -2, columns, -columns]) {
    const size = expected.byteLength - Math.abs(by) * width;
    if (size <= expected.byteLength / 2) continue;
    const from = Buffer.from(expected.subarray(Math.max(0, by) * width).subarray(0, size));
    if (from.equals(found.subarray(Math.max(0, -by) * width).subarray(0, size))) {
      return { kind: "shifted", text: `shifted by ${Math.abs(by)} elements`, suspicion: 1 };
    }
  }
  return null;
}

/** `from[i]` is the position in `a` of row i of `b`; null where the rows of `b` are not a permutation of the rows of `a`. */
function permutation(a: readonly string[], b: readonly string[]): readonly number[] | null {
  const places = new Map<string, number[]>();
  for (const [i, hash] of a.entries()) places.set(hash, [...(places.get(hash) ?? []), i]);
  const from: number[] = [];
  for (const [i, hash] of b.entries()) {
    const known = places.get(hash);
    if (known === undefined || known.length === 0) return null;
    const same = known.indexOf(i);
    from.push(known.splice(Math.max(0, same), 1)[0]!);
  }
  return from;
}

function describePermutation(unit: "rows" | "columns", from: readonly number[]): ErrorPattern {
  const count = from.length;
  const moved = from.flatMap((at, i) => (at === i ? [] : [i]));
  const half = moved.slice(0, moved.length / 2);
  const [lo, hi] = [half[0]!, from[half[0]!]!];
  const blocks = half.every((i, n) => i === lo + n && from[i] === hi + n && from[hi + n] === i);
  if (blocks && moved.length === 2 * half.length) {
    const range = (at: number) => (half.length === 1 ? `${at}` : `${at} to ${at + half.length - 1}`);
    return { kind: "permuted", text: `${unit} ${range(lo)} and ${range(hi)} exchanged`, suspicion: 1 };
  }
  const by = (from[0]! + count) % count;
  if (from.every((at, i) => at === (i + by) % count)) {
    return { kind: "shifted", text: `${unit} shifted by ${Math.min(by, count - by)}`, suspicion: 1 };
  }
  return {
    kind: "permuted",
    text: `${unit} in another order: ${moved.length} of ${count} moved`,
    suspicion: 1,
  };
}

function findScaling({ values }: TensorPair): ErrorPattern | null {
  if (values === null) return null;
  const { factor, rest } = bestFactor(values);
  if (!(rest <= ROUNDED) || Math.abs(factor - 1) < 2e-3) return null;
  const kind = Math.abs(factor + 1) < 2e-3 ? "negated" : "scaled";
  return {
    kind,
    text: kind === "negated" ? "negated" : `scaled by ${Number(factor.toPrecision(4))}`,
    suspicion: 0.95,
  };
}

function describeOther({ values }: TensorPair, share: number): ErrorPattern {
  const wrong = `${Number((100 * share).toPrecision(3))} % of its elements differ`;
  if (values === null) return { kind: "other", text: wrong, suspicion: 0.5 + 0.4 * share };
  const distance = relativeL2(values);
  const text = `${wrong}, relative L2 ${distance.toPrecision(3)}, cosine ${cosine(values).toPrecision(4)}`;
  return {
    kind: "other",
    text,
    suspicion: 0.4 + 0.5 * Math.min(1, Number.isFinite(distance) ? distance : 1),
  };
}

/** Cosine of the angle between two tensors, for comparison with checks that use it; 1 is the same direction. */
export function cosine({ expected, found }: { expected: Float32Array; found: Float32Array }): number {
  const { ab, aa, bb } = products(expected, found);
  return aa === 0 && bb === 0 ? 1 : ab / Math.sqrt(aa * bb);
}

function relativeL2({ expected, found }: { expected: Float32Array; found: Float32Array }): number {
  const { ab, aa, bb } = products(expected, found);
  return Math.sqrt(Math.max(0, aa + bb - 2 * ab) / aa);
}

/** The factor that brings `expected` nearest to `found`, and the relative L2 of the remaining error. */
function bestFactor({ expected, found }: { expected: Float32Array; found: Float32Array }) {
  const { ab, aa, bb } = products(expected, found);
  const factor = ab / aa;
  return { factor, rest: Math.sqrt(Math.max(0, bb - factor * ab) / bb) };
}

function products(a: Float32Array, b: Float32Array) {
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    ab += a[i]! * b[i]!;
    aa += a[i]! * a[i]!;
    bb += b[i]! * b[i]!;
  }
  return { ab, aa, bb };
}

function sameElement(a: Uint8Array, b: Uint8Array, i: number, j: number, width: number): boolean {
  for (let byte = 0; byte < width; byte++) if (a[i * width + byte] !== b[j * width + byte]) return false;
  return true;
}

function isZero(bytes: Uint8Array, i: number, width: number): boolean {
  for (let byte = 0; byte < width; byte++) if (bytes[i * width + byte] !== 0) return false;
  return true;
}

function zerosAmong(bytes: Uint8Array, width: number): number {
  let zeros = 0;
  for (let i = 0; i < bytes.byteLength / width; i++) if (isZero(bytes, i, width)) zeros++;
  return zeros;
}

function hashes(bytes: Uint8Array, rows: number): string[] {
  const size = bytes.byteLength / rows;
  return Array.from({ length: rows }, (_, row) =>
    createHash("sha256")
      .update(bytes.subarray(row * size, (row + 1) * size))
      .digest("base64"),
  );
}

/** A matrix [rows, columns] as [columns, rows]. */
function transpose(bytes: Uint8Array, rows: number, columns: number, width: number): Uint8Array {
  const result = new Uint8Array(bytes.byteLength);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      const from = (r * columns + c) * width;
      result.set(bytes.subarray(from, from + width), (c * rows + r) * width);
    }
  }
  return result;
}
