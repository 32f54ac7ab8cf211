/** The options of a search, and the limits that follow from them. */
import type { PlanOptions } from "../convert/options.ts";
import type { DType } from "../core/dtype.ts";
import type { PromptOptions } from "../inference/prompts.ts";
import { judgedLimits, type LimitOptions, limitsFor } from "../verify/limits.ts";
import type { RecipeSearch } from "./report.ts";

/** The name by which options ask for the automatic recipe. */
export const AUTO = "auto";

export type SearchOptions = PlanOptions & PromptOptions & LimitOptions;

/**
 * The limits of a search: a size, or the divergence that a verification would accept.
 *
 * @param recastTo types that the search may write
 * @param trained  the weights look trained
 */
export function searchLimits(
  options: SearchOptions,
  recastTo: ReadonlySet<DType>,
  trained: boolean,
): RecipeSearch["limits"] {
  const { bits } = options;
  const judged = judgedLimits(recastTo, trained, options);
  if (bits !== undefined) return { ...judged, bits };
  const { klMean, klP99 } = limitsFor(recastTo, options);
  return { klMean, klP99, ...judged };
}
