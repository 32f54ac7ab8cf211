/** Matrix products of a linear stage: which stored rows multiply which part of a stream, and which results are added. */
import type { OutputRows } from "../families/forward.ts";
import type { TensorUse } from "./tensor-lookup.ts";
import type { MatrixRows } from "./weight-bands.ts";

/** A product of stored rows [lo, hi) with `count` rows of a stream, starting at its row `first`. */
export interface MatmulTask extends MatrixRows {
  readonly outputs: readonly OutputRows[];
  /** element of a stream row that the first column of the matrix multiplies */
  readonly inputOffset: number;
  readonly first: number;
  readonly count: number;
}

/** The product of all rows that a tensor use covers with rows [first, first + count) of a stream. */
export function matmulTask(
  { tensor, outputs, inputOffset }: TensorUse,
  first: number,
  count: number,
): MatmulTask {
  const lo = Math.min(...outputs.map(({ from }) => from));
  const hi = Math.max(...outputs.map((feed) => feed.from + feed.count));
  return { tensor, outputs, lo, hi, inputOffset, first, count };
}

/** Products that make only elements [lo, hi) of a stream; the output begins at element lo. */
export function matmulTasksWithin(
  parts: readonly TensorUse[],
  lo: number,
  hi: number,
  count: number,
): readonly MatmulTask[] {
  return parts.flatMap((part) => {
    const feeds = part.outputs.map((feed) => clipRows(feed, lo, hi)).filter((feed) => feed.count > 0);
    return feeds.length === 0 ? [] : [matmulTask({ ...part, outputs: feeds }, 0, count)];
  });
}

function clipRows(feed: OutputRows, lo: number, hi: number): OutputRows {
  const first = Math.max(lo, feed.at);
  const count = Math.max(0, Math.min(hi, feed.at + feed.count) - first);
  return { to: feed.to, at: first - lo, from: feed.from + first - feed.at, count };
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
    a.first === b.first &&
    a.outputs.some((left) =>
      b.outputs.some(
        ({ to, at, count }) => to === left.to && at < left.at + left.count && left.at < at + count,
      ),
    )
  );
}
