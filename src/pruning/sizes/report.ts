/** `prune --sizes`: what a shape needs, or how many shapes of a grid are within the limits. From headers alone. */
import type { RecognisedModel } from "../../families/model.ts";
import type { Budget } from "./budget.ts";
import {
  fittingShapes,
  refuseExceeding,
  type SizedShape,
  type SizeLimits,
  sizedShape,
} from "./candidates.ts";
import type { Grid } from "./grid.ts";
import { layerCosts } from "./layer-costs.ts";
import { type Precision, type ServingMemory, servingMemory } from "./memory.ts";
import { type PrunedShape, wholeShape } from "./shape.ts";

/** Bytes under a budget, and what the budget allows. */
export interface BudgetedMemory extends ServingMemory {
  readonly limit: number;
}

export interface SizesReport {
  readonly architecture: Pick<PrunedShape, "counts" | "ffn"> & { readonly parameters: number };
  /** null without a budget */
  readonly memory: BudgetedMemory | null;
  /** null where a shape is asked for, or no limit is given */
  readonly search: { readonly enumerated: number; readonly fits: number } | null;
}

/**
 * The sizes of a shape, or of the model itself and how many of its shapes are within the limits.
 *
 * @param shape the shape that is asked for; null: none is
 * @throws USAGE for a grid that the model cannot have; PLAN_IMPOSSIBLE for a shape beyond the limits, and where none is within them
 */
export function sizesOf(
  model: RecognisedModel,
  shape: PrunedShape | null,
  limits: SizeLimits,
  grid: Grid | undefined,
): SizesReport {
  const sized = sizedShape(model, shape ?? wholeShape(model), limits);
  if (shape !== null) refuseExceeding(sized, limits);
  const isSearch = shape === null && (limits.budget !== undefined || limits.parameters !== undefined);
  const found = isSearch ? fittingShapes(model, limits, grid) : null;
  const { counts, ffn } = sized.shape;
  return {
    architecture: { counts, ffn, parameters: sized.parameters },
    memory: budgetedMemory(sized, limits.budget),
    search: found && { enumerated: found.enumerated, fits: found.fitting.length },
  };
}

/** The memory of a shape as reports state it. */
export const budgetedMemory = ({ memory }: SizedShape, budget: Budget | undefined): BudgetedMemory | null =>
  memory === null || budget === undefined ? null : { ...memory, limit: budget.memory };

/** Bytes of one sequence, in one choice of precisions and with one context. */
export interface ServingRow extends ServingMemory {
  readonly precisions: { readonly weights: Precision; readonly kv: Precision; readonly state: Precision };
  readonly context: number;
}

const PRECISIONS: readonly ServingRow["precisions"][] = [
  { weights: "bf16", kv: "bf16", state: "bf16" },
  { weights: "fp8", kv: "fp8", state: "bf16" },
  { weights: "nvfp4", kv: "fp8", state: "bf16" },
  { weights: "fp4", kv: "fp8", state: "bf16" },
];
const CONTEXTS = [8192, 131_072, 1_000_000];

/** What a shape needs in usual precisions, with usual contexts. */
export function servingTable(
  model: RecognisedModel,
  shape: PrunedShape = wholeShape(model),
): readonly ServingRow[] {
  const costs = layerCosts(model, shape);
  return PRECISIONS.flatMap((precisions) =>
    CONTEXTS.map((context) => ({
      ...{ precisions, context },
      ...servingMemory(costs, shape, { ...precisions, context, batch: 1 }),
    })),
  );
}
