/** What a wrong tensor looks like beside the right one: zeroed, permuted, shifted, transposed, scaled, or just off. */
import { createHash } from "node:crypto";
import type { Shape } from "../../core/dtype.ts";

export interface ErrorShape {
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
  /** for a person */
  readonly text: string;
  /** 0 to 1: how much of the tensor is wrong, and whether one mistake explains all of it */
  readonly suspicion: number;
}

export interface Pair {
  /** elements of `width` bytes each, as they should be and as they are */
  readonly expected: Uint8Array;
  readonly found: Uint8Array;
  readonly width: number;
  readonly shape: Shape;
  /** the numbers that they stand for */
  readonly values: { readonly expected: Float32Array; readonly found: Float32Array } | null;
}

/** Fewer wrong elements are damage, no mistake of a mapping. */
const FEW = 8;
/** What rounding leaves of a scaled copy: FP8 codes under a scale that is off have up to 2^-4 of their values. */
const ROUNDED = 0.04;

export function shapeOfError(pair: Pair): ErrorShape {
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
  const all = (kind: ErrorShape["kind"], text: string): ErrorShape => ({ kind, text, suspicion: 1 });
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
  return moved(pair) ?? scaled(pair) ?? other(pair, wrongCount / count);
}

function moved(pair: Pair): ErrorShape | null {
  const { expected, found, width, shape } = pair;
  const rows = shape[0] ?? 1;
  const columns = expected.byteLength / width / rows;
  const byRow = permutation(hashes(expected, rows), hashes(found, rows));
  if (byRow !== null) return described("rows", byRow);
  if (columns > 1) {
    const turn = (bytes: Uint8Array) => hashes(transposed(bytes, rows, columns, width), columns);
    const byColumn = permutation(turn(expected), turn(found));
    if (byColumn !== null) return described("columns", byColumn);
    for (const [r, c] of [
      [rows, columns],
      [columns, rows],
    ] as const) {
      if (Buffer.from(transposed(expected, r, c, width)).equals(found)) {
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

/** `from[i]` is where row i of b was in a; null where rows were not just moved. */
function permutation(a: readonly string[], b: readonly string[]): readonly number[] | null {
  const places = new Map<string, number[]>();
  for (const [i, hash] of a.entries()) places.set(hash, [...(places.get(hash) ?? []), i]);
  const from: number[] = [];
  for (const [i, hash] of b.entries()) {
    const known = places.get(hash);
    if (known === undefined || known.length === 0) return null;
    const own = known.indexOf(i);
    from.push(known.splice(Math.max(0, own), 1)[0]!);
  }
  return from;
}

function described(what: "rows" | "columns", from: readonly number[]): ErrorShape {
  const count = from.length;
  const moved = from.flatMap((at, i) => (at === i ? [] : [i]));
  const half = moved.slice(0, moved.length / 2);
  const [lo, hi] = [half[0]!, from[half[0]!]!];
  const blocks = half.every((i, n) => i === lo + n && from[i] === hi + n && from[hi + n] === i);
  if (blocks && moved.length === 2 * half.length) {
    const range = (at: number) => (half.length === 1 ? `${at}` : `${at} to ${at + half.length - 1}`);
    return { kind: "permuted", text: `${what} ${range(lo)} and ${range(hi)} exchanged`, suspicion: 1 };
  }
  const by = (from[0]! + count) % count;
  if (from.every((at, i) => at === (i + by) % count)) {
    return { kind: "shifted", text: `${what} shifted by ${Math.min(by, count - by)}`, suspicion: 1 };
  }
  return {
    kind: "permuted",
    text: `${what} in another order: ${moved.length} of ${count} moved`,
    suspicion: 1,
  };
}

function scaled({ values }: Pair): ErrorShape | null {
  if (values === null) return null;
  const { factor, rest } = nearest(values);
  if (!(rest <= ROUNDED) || Math.abs(factor - 1) < 2e-3) return null;
  const kind = Math.abs(factor + 1) < 2e-3 ? "negated" : "scaled";
  return {
    kind,
    text: kind === "negated" ? "negated" : `scaled by ${Number(factor.toPrecision(4))}`,
    suspicion: 0.95,
  };
}

function other({ values }: Pair, share: number): ErrorShape {
  const wrong = `${Number((100 * share).toPrecision(3))} % of its elements differ`;
  if (values === null) return { kind: "other", text: wrong, suspicion: 0.5 + 0.4 * share };
  const far = relativeL2(values);
  const text = `${wrong}, relative L2 ${far.toPrecision(3)}, cosine ${cosine(values).toPrecision(4)}`;
  return { kind: "other", text, suspicion: 0.4 + 0.5 * Math.min(1, Number.isFinite(far) ? far : 1) };
}

/** What a looser check would see: 1 is the same direction. */
export function cosine({ expected, found }: { expected: Float32Array; found: Float32Array }): number {
  const { ab, aa, bb } = products(expected, found);
  return aa === 0 && bb === 0 ? 1 : ab / Math.sqrt(aa * bb);
}

function relativeL2({ expected, found }: { expected: Float32Array; found: Float32Array }): number {
  const { ab, aa, bb } = products(expected, found);
  return Math.sqrt(Math.max(0, aa + bb - 2 * ab) / aa);
}

/** The factor that brings `expected` nearest to `found`, and the share of `found` that it leaves over. */
function nearest({ expected, found }: { expected: Float32Array; found: Float32Array }) {
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

/** [rows, columns] as [columns, rows]. */
function transposed(bytes: Uint8Array, rows: number, columns: number, width: number): Uint8Array {
  const turned = new Uint8Array(bytes.byteLength);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      const from = (r * columns + c) * width;
      turned.set(bytes.subarray(from, from + width), (c * rows + r) * width);
    }
  }
  return turned;
}
