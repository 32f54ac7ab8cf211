/** Sabotages as descriptions: which blocks of which stored tensor to exchange, the likeliest to show first. */
import { type Tensor, tensorKey } from "../../core/checkpoint.ts";
import type { OutputRows } from "../../families/forward.ts";
import { type BlockExchange, exchangeBlocks } from "./exchange.ts";

/** Pairs of blocks tried before a control counts as missed. */
export const ATTEMPTS = 4;

/** Blocks among which unlike neighbours are looked for: a vocabulary of pairs would take hundreds of megabytes. */
const MOST_BLOCKS = 1024;

/** Two blocks of one stored tensor exchanged, or all of two tensors. */
export type Exchange =
  | { readonly of: Tensor; readonly exchange: BlockExchange }
  | { readonly of: Tensor; readonly with: Tensor };

export interface ControlAttempt {
  readonly mutation: string;
  readonly swaps: readonly Exchange[];
}

/** What is tried at one door, the likeliest to show first. */
export interface ControlTarget {
  readonly door: string;
  readonly attempts: readonly ControlAttempt[];
}

/** Elements [at, at + count) of a stream or parameter, made by rows or columns `from` on of a stored tensor. */
export interface Block {
  readonly at: number;
  readonly from: number;
  readonly count: number;
}

/** What is read in place of what is stored, by key. */
export function replacementsFor(swaps: readonly Exchange[]): ReadonlyMap<string, Tensor> {
  const instead = new Map<string, Tensor>();
  for (const swap of swaps) {
    const key = tensorKey(swap.of);
    if ("with" in swap) {
      const { of, with: other } = swap;
      instead.set(key, { ...of, pieces: other.pieces });
      instead.set(tensorKey(other), { ...other, pieces: of.pieces });
    } else instead.set(key, exchangeBlocks(instead.get(key) ?? swap.of, swap.exchange));
  }
  return instead;
}

/** The first blocks of `size` that a longer run consists of. */
export function blocksOf({ at, from, count }: Block, size: number): readonly Block[] {
  return Array.from({ length: Math.min(MOST_BLOCKS, Math.floor(count / size)) }, (_, i) => {
    return { at: at + i * size, from: from + i * size, count: size };
  });
}

export function groupByStream(feeds: readonly OutputRows[]): ReadonlyMap<string, readonly OutputRows[]> {
  const names = [...new Set(feeds.map(({ to }) => to))];
  return new Map(names.map((name) => [name, feeds.filter(({ to }) => to === name)]));
}

/** Neighbouring blocks, each pair exchanged. `values` is what they make, or are. */
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
  const what = axis === 0 ? "" : "columns of ";
  return mostUnlike(pairs).map(({ left, right, i }) => ({
    mutation: `${tensorKey(tensor)}: ${what}${of}s ${i} and ${i + 1} of ${stream} exchanged`,
    swaps: [{ of: tensor, exchange: { axis, a: left.from, b: right.from, count: left.count } }],
  }));
}

/** Parts of one tensor that follow each other and are cut alike, such as z and x, or k and v: each for the other. */
export function partTargets(
  of: Tensor,
  streams: ReadonlyMap<string, readonly OutputRows[]>,
): readonly (ControlTarget & { readonly streams: readonly string[] })[] {
  const all = [...streams];
  return all.slice(1).flatMap(([right, theirs], i) => {
    const [left, mine] = all[i]!;
    if (mine.length !== theirs.length || mine.some(({ count }, n) => count !== theirs[n]!.count)) return [];
    const swaps = mine.map(({ from, count }, n) => ({
      of,
      exchange: { axis: 0 as const, a: from, b: theirs[n]!.from, count },
    }));
    const attempts = [{ mutation: `${tensorKey(of)}: ${left} and ${right} exchanged`, swaps }];
    return [{ door: left, attempts, streams: [left, right] }];
  });
}

export function mostUnlike<T extends { readonly unlike: number }>(pairs: readonly T[]): readonly T[] {
  return [...pairs].sort((a, b) => b.unlike - a.unlike).slice(0, ATTEMPTS);
}

export function distance(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - b[i]!) ** 2;
  return Number.isNaN(sum) ? 0 : sum;
}

/** The elements of a block in every row of a stream [rows, width]. */
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
