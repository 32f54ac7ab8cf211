/**
 * Matrix products of a linear stage: which stored rows multiply which part of a stream, which results are added, and the order of
 * the results of rows that are stored in pairs.
 */
import type { Backend, Region } from "../../../kernels/kernel.ts";
import { type Tensor, tensorKey } from "../../core/checkpoint.ts";
import type { HeadPairs, OutputRows } from "../../families/forward.ts";
import { putFloats } from "../sequences.ts";
import type { RowRange, TensorUse } from "../tensor-lookup.ts";
import type { MatrixRows } from "../weight-bands.ts";

/** A product of stored rows [lo, hi) with rows of a stream. */
export interface MatmulTask extends MatrixRows {
  readonly outputs: readonly OutputRows[];
  /** element of a stream row that the first column of the matrix multiplies */
  readonly inputOffset: number;
  /** only the rows that chose this expert; null: all rows */
  readonly expert: number | null;
  readonly pairsIn?: HeadPairs;
}

/** A product, and what decides the bits of its result besides the stored numbers, their dtype and scale, and the values of the stream. */
export interface DescribedProduct {
  readonly tensor: Tensor;
  /** equal for two products that a kernel computes with equal arguments */
  readonly description: string;
}

/**
 * Describes a product.
 *
 * @param factor what the results are multiplied by
 * @param from   the stream that it reads
 * @param widths elements in one row of each stream
 */
export function describeProduct(
  { tensor, ...task }: MatmulTask,
  factor: number,
  from: string,
  widths: Readonly<Record<string, number>>,
): DescribedProduct {
  const outWidths = task.outputs.map(({ to }) => widths[to]);
  const description = JSON.stringify([task, tensor.shape.at(-1), factor, from, widths[from], outWidths]);
  return { tensor, description };
}

/** The product of all rows that a tensor use covers with the rows of a stream, or with those of an expert. */
export function matmulTask(
  { tensor, outputs, inputOffset, pairsIn }: TensorUse,
  expert: number | null = null,
): MatmulTask {
  const lo = Math.min(...outputs.map(({ from }) => from));
  const hi = Math.max(...outputs.map((output) => output.from + output.count));
  const paired = pairsIn === undefined ? {} : { pairsIn };
  return { tensor, outputs, lo, hi, inputOffset, expert, ...paired };
}

/** Products that make only elements [lo, hi) of a stream; the output begins at element lo. */
export function matmulTasksWithin(
  parts: readonly TensorUse[],
  lo: number,
  hi: number,
): readonly MatmulTask[] {
  return parts.flatMap((part) => {
    const rows = part.outputs.map((output) => clipRows(output, lo, hi)).filter((output) => output.count > 0);
    return rows.length === 0 ? [] : [matmulTask({ ...part, outputs: rows })];
  });
}

/**
 * The parts of products that some stored rows make. All products are returned unchanged where a row alone has no meaning:
 * rows that are stored in pairs, and results that are added.
 *
 * @param rows by `tensorKey`; a tensor without an entry has none of the rows
 */
export function matmulTasksOfRows(
  tasks: readonly MatmulTask[],
  rows: ReadonlyMap<string, readonly RowRange[]>,
): readonly MatmulTask[] {
  if (groupByOutput(tasks).length > 1 || tasks.some(({ pairsIn }) => pairsIn !== undefined)) return tasks;
  return tasks.flatMap((task) =>
    (rows.get(tensorKey(task.tensor)) ?? []).flatMap(({ lo, hi }) => {
      const outputs = task.outputs.flatMap(({ to, at, from, count }): readonly OutputRows[] => {
        const first = Math.max(lo, from);
        const left = Math.min(hi, from + count) - first;
        return left > 0 ? [{ to, at: at + first - from, from: first, count: left }] : [];
      });
      return outputs.length === 0 ? [] : [matmulTask({ ...task, outputs }, task.expert)];
    }),
  );
}

function clipRows(output: OutputRows, lo: number, hi: number): OutputRows {
  const first = Math.max(lo, output.at);
  const count = Math.max(0, Math.min(hi, output.at + output.count) - first);
  return { ...output, at: first - lo, from: output.from + first - output.at, count };
}

/** Groups products into rounds, in order: two products that make the same output elements are in different rounds. */
export function groupByOutput(products: readonly MatmulTask[]): readonly (readonly MatmulTask[])[] {
  const rounds: MatmulTask[][] = [];
  for (const product of products) {
    const round = rounds.find((others) => !others.some((other) => overlap(product, other)));
    if (round === undefined) rounds.push([product]);
    else round.push(product);
  }
  return rounds;
}

function overlap(a: MatmulTask, b: MatmulTask): boolean {
  return (
    a.expert === b.expert &&
    a.outputs.some((left) =>
      b.outputs.some(
        ({ to, at, count }) => to === left.to && at < left.at + left.count && left.at < at + count,
      ),
    )
  );
}

/** Moves elements 2j and 2j + 1 of the pairs in each head to j and j + paired / 2. */
export function unpairHeads(values: Float32Array, { width, paired }: HeadPairs): void {
  const pairs = new Float32Array(paired);
  for (let from = 0; from < values.length; from += width) {
    pairs.set(values.subarray(from, from + paired));
    for (let j = 0; j < paired / 2; j++) {
      values[from + j] = pairs[2 * j]!;
      values[from + j + paired / 2] = pairs[2 * j + 1]!;
    }
  }
}

/**
 * Puts the elements that stored pairs produced into the order of their head.
 *
 * @param tasks   the products that made the streams
 * @param regions streams by name, [rows, width]
 * @param widths  elements in one row of each stream
 */
export async function unpairProducts(
  backend: Backend,
  tasks: readonly MatmulTask[],
  regions: ReadonlyMap<string, Region>,
  rows: number,
  widths: Readonly<Record<string, number>>,
): Promise<void> {
  for (const { outputs, pairsIn } of tasks) {
    if (pairsIn === undefined) continue;
    for (const { to, at, count } of outputs) {
      const region = regions.get(to)!;
      const width = widths[to]!;
      const values = (await backend.view(region, rows * width)).slice();
      for (let row = 0; row < rows; row++)
        unpairHeads(values.subarray(row * width + at, row * width + at + count), pairsIn);
      await putFloats(backend, region, values);
    }
  }
}
