/** Which rows of a stored matrix multiply which part of a stream, and whose results add up. */
import type { Feed } from "../families/family.ts";
import type { Part } from "./tensor-lookup.ts";
import type { Rows } from "./weight-bands.ts";

/** Stored rows that multiply `count` rows of a stream, from row `first` on. */
export interface Product extends Rows {
  readonly feeds: readonly Feed[];
  /** where in a row of the stream the first column begins */
  readonly eats: number;
  readonly first: number;
  readonly count: number;
}

/** Rows of a stream times all that a stored tensor feeds. */
export function productOf({ tensor, feeds, eats }: Part, first: number, count: number): Product {
  const lo = Math.min(...feeds.map(({ from }) => from));
  const hi = Math.max(...feeds.map((feed) => feed.from + feed.count));
  return { tensor, feeds, lo, hi, eats, first, count };
}

/** A product of those elements alone that lie in [lo, hi) of a stream, as of one that begins at lo. */
export function productsWithin(
  parts: readonly Part[],
  lo: number,
  hi: number,
  count: number,
): readonly Product[] {
  return parts.flatMap((part) => {
    const feeds = part.feeds.map((feed) => clipped(feed, lo, hi)).filter((feed) => feed.count > 0);
    return feeds.length === 0 ? [] : [productOf({ ...part, feeds }, 0, count)];
  });
}

function clipped(feed: Feed, lo: number, hi: number): Feed {
  const first = Math.max(lo, feed.at);
  const count = Math.max(0, Math.min(hi, feed.at + feed.count) - first);
  return { to: feed.to, at: first - lo, from: feed.from + first - feed.at, count };
}

/** Products in their order, each in the first round in which nothing else makes the same elements. */
export function rounds(products: readonly Product[]): readonly (readonly Product[])[] {
  const made: Product[][] = [];
  for (const product of products) {
    const round = made.find((others) => !others.some((other) => overlap(product, other)));
    if (round === undefined) made.push([product]);
    else round.push(product);
  }
  return made;
}

function overlap(a: Product, b: Product): boolean {
  return (
    a.first === b.first &&
    a.feeds.some((mine) =>
      b.feeds.some(
        ({ to, at, count }) => to === mine.to && at < mine.at + mine.count && mine.at < at + count,
      ),
    )
  );
}
