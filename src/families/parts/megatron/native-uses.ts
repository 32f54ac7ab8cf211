/**
 * Uses of tensors that Megatron's ranks store: the fused tensor of a rank produces its share of each stream, and partial sums
 * of row-parallel layers are added over ranks. Written by hand and apart from the rules, because it checks them.
 */
import type { OutputRows, TensorPosition, Use } from "../../forward.ts";
import type { Dims } from "../../structure.ts";

type Size<D extends Dims> = (d: D) => number;

/** Column-parallel: the n rows of rank t are [t n, (t + 1) n) of the stream. Rows past its end are padding or copies of another rank's. */
function ownRows(
  to: string,
  size: number,
  { tp, shape }: Pick<TensorPosition, "tp" | "shape">,
): readonly OutputRows[] {
  const [count, at] = [shape[0]!, tp * shape[0]!];
  return at < size ? [{ to, at, from: 0, count: Math.min(count, size - at) }] : [];
}

export const rows = <D extends Dims>(
  name: string,
  to: string | ((d: D) => string),
  size: Size<D>,
  also: readonly string[] = [],
): Use<D> => ({
  name,
  also,
  outputs: (d, at) => ownRows(typeof to === "string" ? to : to(d), size(d), at),
});

/** Row-parallel: the n columns of rank t multiply elements [t n, (t + 1) n) of the input stream and give a partial sum of all rows. */
export const columns = <D extends Dims>(
  name: string,
  to: string | ((d: D) => string),
  inputSize: Size<D>,
): Use<D> => ({
  name,
  outputs: (d, { tp, shape }) => {
    const [count, width] = [shape[0]!, shape[1]!];
    const stream = typeof to === "string" ? to : to(d);
    return tp * width < inputSize(d) ? [{ to: stream, at: 0, from: 0, count }] : [];
  },
  inputOffset: (_, { tp, shape }) => tp * shape[1]!,
});

/** The matrix of one expert, in as many parts as its shape shows. Ranks with higher numbers hold copies of the first parts. */
export const expertUp = <D extends ExpertDims>(name: string, also: readonly string[] = []): Use<D> => ({
  name,
  also,
  outputs: (d, { tp, shape }) => ownRows("expert.up", d.moeFfn, { tp: tp % (d.moeFfn / shape[0]!), shape }),
});
export const expertDown = <D extends ExpertDims>(name: string, also: readonly string[] = []): Use<D> => ({
  name,
  also,
  outputs: (_, { shape }) => [{ to: "expert.down", at: 0, from: 0, count: shape[0]! }],
  inputOffset: (d, { tp, shape }) => (tp % (d.moeFfn / shape[1]!)) * shape[1]!,
});

/** The fused tensor of one rank: its share of each part, one after the other. */
export const fusedParts = <D extends Dims>(
  name: string,
  parts: (d: D) => Readonly<Record<string, number>>,
  also: readonly string[] = [],
): Use<D> => ({
  name,
  also,
  outputs: (d, { tp, shape }) => {
    const sizes = Object.entries(parts(d)).map(([to, size]) => ({ to, size }));
    const ranks = sizes.reduce((sum, { size }) => sum + size, 0) / shape[0]!;
    if (tp >= ranks) return [];
    let from = 0;
    return sizes.map(({ to, size }) => {
      const feed = { to, at: (tp * size) / ranks, from, count: size / ranks };
      from += feed.count;
      return feed;
    });
  },
});

/**
 * Fused queries, keys and values: for each group of heads its queries, then its key, then its value. Rank t has rows
 * [t n, (t + 1) n), which need not be whole groups.
 */
export const byGroup =
  <D extends HeadDims>(spell: (d: D, stream: "q" | "k" | "v") => string = (_, stream) => stream) =>
  (d: D, { tp, shape }: TensorPosition): readonly OutputRows[] => {
    const queries = (d.heads / d.kvHeads) * d.headDim;
    const first = tp * shape[0]!;
    const feeds: OutputRows[] = [];
    for (let group = 0; group < d.kvHeads; group++) {
      let from = group * (queries + 2 * d.headDim) - first;
      for (const [stream, size] of [
        ["q", queries],
        ["k", d.headDim],
        ["v", d.headDim],
      ] as const) {
        const [lo, hi] = [Math.max(from, 0), Math.min(from + size, shape[0]!)];
        const to = spell(d, stream);
        if (lo < hi) feeds.push({ to, at: group * size + lo - from, from: lo, count: hi - lo });
        from += size;
      }
    }
    return feeds;
  };

interface HeadDims extends Dims {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

interface ExpertDims extends Dims {
  /** inner width of an expert */
  readonly moeFfn: number;
}
