/** The largest magnitude of each block of a matrix, from bands of its elements. */

/** How a matrix is divided into blocks. */
export interface BlockGrid {
  /** of the whole matrix */
  readonly columns: number;
  /** rows and columns of a block; those at the ends may have fewer */
  readonly block: readonly [rows: number, columns: number];
}

/** The blocks that a band touches, row of blocks by row of blocks. */
export interface BlockMaxima {
  /** the first row of blocks */
  readonly first: number;
  /** blocks in a row of blocks */
  readonly perRow: number;
  /** largest magnitude of the band's elements in each block */
  readonly amax: Float32Array;
  /** stored scale of each block */
  readonly scale: Float32Array;
}

/**
 * @param weights elements from `lo` on
 * @param scales  the scale of each of these elements
 */
export function blockMaxima(
  weights: Float32Array,
  scales: Float32Array,
  lo: number,
  { columns, block: [height, width] }: BlockGrid,
): BlockMaxima {
  const hi = lo + weights.length;
  const perRow = Math.ceil(columns / width);
  const rowOf = (element: number) => Math.floor(Math.floor(element / columns) / height);
  const first = rowOf(lo);
  const count = (rowOf(hi - 1) - first + 1) * perRow;
  const [amax, scale] = [new Float32Array(count), new Float32Array(count)];
  for (let row = Math.floor(lo / columns); row * columns < hi; row++) {
    const start = (Math.floor(row / height) - first) * perRow;
    for (let i = 0; i < perRow; i++) {
      const from = Math.max(lo, row * columns + i * width) - lo;
      const to = Math.min(hi, row * columns + Math.min(columns, (i + 1) * width)) - lo;
      for (let at = from; at < to; at++) amax[start + i] = Math.max(amax[start + i]!, Math.abs(weights[at]!));
      if (from < to) scale[start + i] = scales[from]!;
    }
  }
  return { first, perRow, amax, scale };
}
