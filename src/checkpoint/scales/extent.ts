/** Which elements of a weight share a scale. */
import { countOf, type Shape, sameShape } from "../../core/dtype.ts";

/** One scale for the whole tensor, one for each row, or one for each block of rows and columns. */
export type ScaleExtent = "tensor" | "row" | "block";

export interface ScaleBlocks {
  readonly extent: ScaleExtent;
  /** rows and columns of a matrix that share a scale; blocks at the ends may be smaller */
  readonly block: readonly [rows: number, columns: number];
  /** number of blocks along rows and columns of one matrix */
  readonly grid: readonly [rows: number, columns: number];
}

/** Sides of blocks that tools use, in the order in which they are tried; another side must divide the weight. */
const USUAL_SIDES = [128, 64, 32, 16] as const;

/**
 * The blocks of a weight whose scales have this shape: [] or [1]; [O] or [O, 1]; [ceil(O / r), ceil(I / c)], which ModelOpt
 * stores as [nO, 1, nI, 1]; for a stack of matrices each with the number of matrices before it.
 *
 * @param weight   shape of the weight, in elements: [O, I], or [n, O, I]
 * @param scales   shape of the scale tensor
 * @param declared block sides that the config names
 * @returns undefined for a shape that does not fit
 */
export function blocksOf(
  weight: Shape,
  scales: Shape,
  declared?: readonly [rows: number, columns: number],
): ScaleBlocks | undefined {
  const [rows, columns] = weight.length < 2 ? [weight[0] ?? 1, 1] : (weight.slice(-2) as [number, number]);
  if (countOf(scales) === 1) return { extent: "tensor", block: [rows, columns], grid: [1, 1] };
  const grid = gridOf(weight, scales);
  if (grid === undefined) return undefined;
  if (weight.length < 3 && grid[0] === rows && grid[1] === 1)
    return { extent: "row", block: [1, columns], grid };
  const block = [sideOf(rows, grid[0], declared?.[0]), sideOf(columns, grid[1], declared?.[1])] as const;
  const [height, width] = block;
  return height === undefined || width === undefined
    ? undefined
    : { extent: "block", block: [height, width], grid };
}

/** Blocks along rows and columns of one matrix; undefined if the scales are not such a grid for each matrix. */
function gridOf(weight: Shape, scales: Shape): readonly [number, number] | undefined {
  const stack = weight.slice(0, -2);
  const squeezed =
    scales.length === 4 && scales[1] === 1 && scales[3] === 1 ? [scales[0]!, scales[2]!] : scales;
  const isStacked = sameShape(squeezed.slice(0, stack.length), stack);
  if (!isStacked) return undefined;
  const rest = squeezed.slice(stack.length);
  if (rest.length > 2) return undefined;
  const [rows = 1, columns = 1] = rest;
  return [rows, columns];
}

/** Elements in one of `count` blocks that cover `size` elements; undefined if no usual side gives this number of blocks. */
function sideOf(size: number, count: number, declared: number | undefined): number | undefined {
  if (count === 1) return size;
  if (count === size) return 1;
  const sides = [...(declared === undefined ? [] : [declared]), ...USUAL_SIDES];
  return (
    sides.find((side) => Math.ceil(size / side) === count) ?? (size % count === 0 ? size / count : undefined)
  );
}
