/** Matrix products of a linear stage: which stored rows multiply which part of a stream, and which results are added. */
import type { OutputRows } from "../families/forward.ts";
import type { TensorUse } from "./tensor-lookup.ts";
import type { MatrixRows } from "./weight-bands.ts";

/** A product of stored rows [lo, hi) with rows of a stream. */
export interface MatmulTask extends MatrixRows {
  readonly outputs: readonly OutputRows[];
  /** element of a stream row that the first column of the matrix multiplies */
  readonly inputOffset: number;
  /** only the rows that chose this expert; null: all rows */
  readonly expert: number | null;
}

/** The product of all rows that a tensor use covers with the rows of a stream, or with those of an expert. */
export function matmulTask(
  { tensor, outputs, inputOffset }: TensorUse,
  expert: number | null = null,
): MatmulTask {
  const lo = Math.min(...outputs.map(({ from }) => from));
  const hi = Math.max(...outputs.map((output) => output.from + output.count));
  return { tensor, outputs, lo, hi, inputOffset, expert };
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

function clipRows(output: OutputRows, lo: number, hi: number): OutputRows {
  const first = Math.max(lo, output.at);
  const count = Math.max(0, Math.min(hi, output.at + output.count) - first);
  return { to: output.to, at: first - lo, from: output.from + first - output.at, count };
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
