/** Which rows of a stored matrix multiply which part of a stream, and whose results add up. */
import type { OutputRows } from "../families/forward.ts";
import type { TensorUse } from "./tensor-lookup.ts";
import type { MatrixRows } from "./weight-bands.ts";

/** Stored rows that multiply `count` rows of a stream, from row `first` on. */
export interface MatmulTask extends MatrixRows {
  readonly outputs: readonly OutputRows[];
  /** where in a row of the stream the first column begins */
  readonly inputOffset: number;
  readonly first: number;
  readonly count: number;
}

/** Rows of a stream times all that a stored tensor feeds. */
export function matmulTask(
  { tensor, outputs, inputOffset }: TensorUse,
  first: number,
  count: number,
): MatmulTask {
  const lo = Math.min(...outputs.map(({ from }) => from));
  const hi = Math.max(...outputs.map((feed) => feed.from + feed.count));
  return { tensor, outputs, lo, hi, inputOffset, first, count };
}

/** A product of those elements alone that lie in [lo, hi) of a stream, as of one that begins at lo. */
export function matmulTasksWithin(
  parts: readonly TensorUse[],
  lo: number,
  hi: number,
  count: number,
): readonly MatmulTask[] {
  return parts.flatMap((part) => {
    const feeds = part.outputs.map((feed) => clipped(feed, lo, hi)).filter((feed) => feed.count > 0);
    return feeds.length === 0 ? [] : [matmulTask({ ...part, outputs: feeds }, 0, count)];
  });
}

function clipped(feed: OutputRows, lo: number, hi: number): OutputRows {
  const first = Math.max(lo, feed.at);
  const count = Math.max(0, Math.min(hi, feed.at + feed.count) - first);
  return { to: feed.to, at: first - lo, from: feed.from + first - feed.at, count };
}

/** Products in their order, each in the first round in which nothing else makes the same elements. */
export function groupByOutput(products: readonly MatmulTask[]): readonly (readonly MatmulTask[])[] {
  const made: MatmulTask[][] = [];
  for (const product of products) {
    const round = made.find((others) => !others.some((other) => overlap(product, other)));
    if (round === undefined) made.push([product]);
    else round.push(product);
  }
  return made;
}

function overlap(a: MatmulTask, b: MatmulTask): boolean {
  return (
    a.first === b.first &&
    a.outputs.some((mine) =>
      b.outputs.some(
        ({ to, at, count }) => to === mine.to && at < mine.at + mine.count && mine.at < at + count,
      ),
    )
  );
}
