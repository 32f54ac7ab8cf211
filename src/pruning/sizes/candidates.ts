/** The candidates of a search: every shape of a grid, and those that are within the limits. Headers are enough. */
import { IsologitError } from "../../core/errors.ts";
import { formatBytes, formatCount } from "../../core/figures.ts";
import type { RecognisedModel } from "../../families/model.ts";
import type { Budget } from "./budget.ts";
import { type Grid, gridAxes } from "./grid.ts";
import { costOfLayers, type LayerCosts, layerCosts } from "./layer-costs.ts";
import { type ServingMemory, servingMemory } from "./memory.ts";
import { type PrunedShape, wholeShape } from "./shape.ts";

/** What a shape must not exceed. */
export interface SizeLimits {
  readonly budget?: Budget;
  /** largest number of parameters */
  readonly parameters?: number;
}

/** A shape with its sizes. */
export interface SizedShape {
  readonly shape: PrunedShape;
  readonly parameters: number;
  /** null without a budget */
  readonly memory: ServingMemory | null;
}

export interface FittingShapes {
  /** shapes of the grid */
  readonly enumerated: number;
  /** those within the limits, in the order of the grid */
  readonly fitting: readonly SizedShape[];
}

/** @param costs of layers at the widths of the shape */
export function sizedShape(
  model: RecognisedModel,
  shape: PrunedShape,
  { budget }: SizeLimits,
  costs: LayerCosts = layerCosts(model, shape),
): SizedShape {
  const memory = budget === undefined ? null : servingMemory(costs, shape, budget);
  return { shape, parameters: costOfLayers(costs, shape, "parameters") + costs.outside, memory };
}

/**
 * The shapes of a grid that are within the limits.
 *
 * @param grid default: as `gridAxes` says
 * @throws USAGE for a grid that the model cannot have; PLAN_IMPOSSIBLE, which names the smallest, if none is within the limits
 */
export function fittingShapes(
  model: RecognisedModel,
  limits: SizeLimits,
  grid: Grid = new Map(),
): FittingShapes {
  const axes = gridAxes(model, grid);
  const whole = wholeShape(model);
  const costs = new Map(axes.get("ffn")!.map((ffn) => [ffn, layerCosts(model, { ...whole, ffn })]));
  const sized = shapesOf(whole, axes).map((shape) => sizedShape(model, shape, limits, costs.get(shape.ffn)));
  const fitting = sized.filter((one) => excessOf(one, limits) === null);
  if (fitting.length > 0) return { enumerated: sized.length, fitting };
  const size = ({ memory, parameters }: SizedShape) => memory?.total ?? parameters;
  const smallest = sized.reduce((least, one) => (size(one) < size(least) ? one : least));
  const message = `no shape of the grid fits: the smallest has ${shapeText(smallest.shape)}, and ${excessOf(smallest, limits)}`;
  throw new IsologitError("PLAN_IMPOSSIBLE", message, {}, { next: "allow more, or widen the `grid`" });
}

/** Refuses a shape beyond the limits. @throws PLAN_IMPOSSIBLE with what it needs */
export function refuseExceeding(sized: SizedShape, limits: SizeLimits): void {
  const excess = excessOf(sized, limits);
  if (excess === null) return;
  const next = "allow more, or ask for a smaller shape";
  throw new IsologitError("PLAN_IMPOSSIBLE", `the shape does not fit: ${excess}`, {}, { next });
}

/** How a shape is beyond the limits, as text; null if it is not. */
function excessOf(
  { memory, parameters }: SizedShape,
  { budget, parameters: most }: SizeLimits,
): string | null {
  if (most !== undefined && parameters > most)
    return `it has ${formatCount(parameters)} parameters, and ${formatCount(most)} are allowed`;
  if (budget === undefined || memory!.total <= budget.memory) return null;
  return `it needs ${exactly(memory!.total)}, and ${exactly(budget.memory)} are allowed`;
}

/** Three decimals, because a shape may miss a budget by very little: `31.705 GiB`. */
const exactly = (bytes: number): string =>
  bytes < 2 ** 30
    ? `${formatBytes(bytes)} (${formatCount(Math.ceil(bytes))} bytes)`
    : `${(bytes / 2 ** 30).toFixed(3)} GiB`;

/** `attention 5, mamba 45, mlp 48, ffn 30720` */
const shapeText = ({ counts, ffn }: Pick<PrunedShape, "counts" | "ffn">): string =>
  [...Object.entries(counts), ["ffn", ffn] as const]
    .filter(([, count]) => count > 0)
    .map(([name, count]) => `${name} ${count}`)
    .join(", ");

/** Every combination of the values of the axes; a shape without layers is left out. */
function shapesOf(whole: PrunedShape, axes: ReadonlyMap<string, readonly number[]>): readonly PrunedShape[] {
  let shapes: readonly PrunedShape[] = [whole];
  for (const [name, values] of axes) {
    shapes = shapes.flatMap((shape) =>
      values.map((value) =>
        name === "ffn" ? { ...shape, ffn: value } : { ...shape, counts: { ...shape.counts, [name]: value } },
      ),
    );
  }
  return shapes.filter(({ counts }) => Object.values(counts).some((count) => count > 0));
}
