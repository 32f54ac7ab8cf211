/** Describes the faults of controls: which blocks of which stored tensor to exchange, the largest effect first. */
import { decodedTensor } from "../../checkpoint/scales/decode.ts";
import { type Tensor, tensorKey } from "../../core/checkpoint.ts";
import { isDecodedBlock } from "../../core/dtype.ts";
import type { OutputRows } from "../../families/forward.ts";
import type { RowRange } from "../../inference/tensor-lookup.ts";
import { type BlockExchange, exchangeBlocks } from "./exchange.ts";

/** Number of attempts before a control counts as missed. */
export const ATTEMPTS = 4;

/** Most blocks considered for an exchange: for a whole vocabulary, the pairs would need hundreds of megabytes. */
const MOST_BLOCKS = 1024;

/** Exchanges two blocks of one stored tensor, or two whole tensors. */
export type Exchange =
  | { readonly of: Tensor; readonly exchange: BlockExchange }
  | { readonly of: Tensor; readonly with: Tensor };

/** One fault to try. */
export interface ControlAttempt {
  /** description of the fault */
  readonly mutation: string;
  readonly swaps: readonly Exchange[];
}

/** The faults to try at one door, the largest effect first. */
export interface ControlTarget {
  readonly door: string;
  readonly attempts: readonly ControlAttempt[];
}

/** Elements [at, at + count) of a stream or parameter; they come from rows or columns [from, from + count) of a tensor. */
export interface Block {
  readonly at: number;
  readonly from: number;
  readonly count: number;
}

/** The tensors to read in place of the stored tensors, by key. */
export function replacementsFor(swaps: readonly Exchange[]): ReadonlyMap<string, Tensor> {
  const replacements = new Map<string, Tensor>();
  for (const swap of swaps) {
    const key = tensorKey(swap.of);
    if ("with" in swap) {
      const { of, with: other } = swap;
      replacements.set(key, { ...of, pieces: other.pieces });
      replacements.set(tensorKey(other), { ...other, pieces: of.pieces });
    } else replacements.set(key, exchangeBlocks(replacements.get(key) ?? swap.of, swap.exchange));
  }
  return replacements;
}

/** Rows of each block that show a fault before all rows are computed. */
const FEW_ROWS = 64;

/**
 * A few of the rows that change, by tensor: the first of each exchanged block, or of each output where columns or whole tensors are
 * exchanged. A door at which the comparison sees the change of these rows is further off with the others.
 *
 * @param outputs what the tensors make in which columns are exchanged
 */
export function fewChangedRows(
  swaps: readonly Exchange[],
  outputs: readonly OutputRows[],
): ReadonlyMap<string, readonly RowRange[]> {
  const rows = new Map<string, RowRange[]>();
  for (const swap of swaps) {
    const blocks = "with" in swap || swap.exchange.axis === 1 ? outputs : exchangedRows(swap.exchange);
    const ranges = blocks.map(({ from, count }) => ({ lo: from, hi: from + Math.min(count, FEW_ROWS) }));
    const key = tensorKey(swap.of);
    rows.set(key, [...(rows.get(key) ?? []), ...ranges]);
  }
  return rows;
}

const exchangedRows = ({ a, b, count }: BlockExchange) => [a, b].map((from) => ({ from, count }));

/** Splits a block into blocks of `size`; returns at most MOST_BLOCKS of them. */
export function blocksOf({ at, from, count }: Block, size: number): readonly Block[] {
  return Array.from({ length: Math.min(MOST_BLOCKS, Math.floor(count / size)) }, (_, i) => {
    return { at: at + i * size, from: from + i * size, count: size };
  });
}

/** Groups rows by the stream that they make. */
export function groupByStream(outputs: readonly OutputRows[]): ReadonlyMap<string, readonly OutputRows[]> {
  const names = [...new Set(outputs.map(({ to }) => to))];
  return new Map(names.map((name) => [name, outputs.filter(({ to }) => to === name)]));
}

/**
 * Attempts that exchange neighbouring blocks, the pair with the largest difference first. Columns of a quantised tensor are
 * exchanged among its values.
 *
 * @param of     name of a block in the description, such as "head"
 * @param stream stream or parameter, for the description
 * @param values the values of a block, or the values that it makes
 */
export function neighbourTargets(
  tensor: Tensor,
  blocks: readonly Block[],
  axis: BlockExchange["axis"],
  of: string,
  stream: string,
  values: (block: Block) => Float32Array,
): readonly ControlAttempt[] {
  const pairs = blocks.slice(1).map((right, i) => {
    const left = blocks[i]!;
    return { left, right, i, unlike: distance(values(left), values(right)) };
  });
  const unit = axis === 0 ? "" : "columns of ";
  const isDivided = isDecodedBlock(tensor.dtype) && (axis === 1 || tensor.shape.length === 1);
  const exchanged = isDivided ? decodedTensor(tensor, "value") : tensor; // blocks of a row are not divided
  return mostUnlike(pairs).map(({ left, right, i }) => ({
    mutation: `${tensorKey(tensor)}: ${unit}${of}s ${i} and ${i + 1} of ${stream} exchanged`,
    swaps: [{ of: exchanged, exchange: { axis, a: left.from, b: right.from, count: left.count } }],
  }));
}

/** Targets that exchange neighbouring parts of a tensor with equal sizes, such as z and x, or k and v. */
export function partTargets(
  of: Tensor,
  streams: ReadonlyMap<string, readonly OutputRows[]>,
): readonly (ControlTarget & { readonly streams: readonly string[] })[] {
  const all = [...streams];
  return all.slice(1).flatMap(([right, rightRows], i) => {
    const [left, leftRows] = all[i]!;
    const differs = leftRows.some(({ count }, n) => count !== rightRows[n]?.count);
    if (differs || leftRows.length !== rightRows.length) return [];
    const swaps = leftRows.map(({ from, count }, n) => ({
      of,
      exchange: { axis: 0 as const, a: from, b: rightRows[n]!.from, count },
    }));
    const attempts = [{ mutation: `${tensorKey(of)}: ${left} and ${right} exchanged`, swaps }];
    return [{ door: left, attempts, streams: [left, right] }];
  });
}

/** The pairs with the largest differences, in descending order; at most ATTEMPTS. */
export function mostUnlike<T extends { readonly unlike: number }>(pairs: readonly T[]): readonly T[] {
  return [...pairs].sort((a, b) => b.unlike - a.unlike).slice(0, ATTEMPTS);
}

/** Squared distance of two blocks; 0 where a value is NaN. */
export function distance(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - b[i]!) ** 2;
  return Number.isNaN(sum) ? 0 : sum;
}

/** Returns a function that collects the elements of a block from every row of a stream [rows, width]. */
export function blockColumns(stream: Float32Array, width: number): (block: Block) => Float32Array {
  return ({ at, count }) => {
    const rows = Math.floor(stream.length / width);
    const values = new Float32Array(rows * count);
    for (let t = 0; t < rows; t++) {
      values.set(stream.subarray(t * width + at, t * width + at + count), t * count);
    }
    return values;
  };
}
