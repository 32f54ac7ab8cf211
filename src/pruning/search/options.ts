/** Options that ask for a shape by its size. */
import { IsologitError } from "../../core/errors.ts";
import type { ShapeRank } from "../options.ts";
import { parseBudget } from "../sizes/budget.ts";
import type { SizeLimits } from "../sizes/candidates.ts";
import { type Grid, parseGrid } from "../sizes/grid.ts";

export interface SizeOptions {
  /**
   * memory that the model may need for inference: `memory=31.7GiB,weights=fp4,kv=fp8,state=bf16,context=1M,batch=1`. Only
   * `memory` is required; the others are bf16, bf16, bf16, 8192 and 1
   */
  readonly budget?: string;
  /** largest number of parameters */
  readonly params?: number;
  /**
   * the shapes of a search: `attention=1..10,mamba=41..54,mlp=41..54,ffn=24576..32768/1024`. Default: attention from 1 layer to
   * all, other kinds from 75 % of their layers to all, MLPs from 75 % of their width in steps of 1/32
   */
  readonly grid?: string;
}

export interface ShapeSearchOptions extends SizeOptions {
  /** number of shapes that are measured, those with the least estimated divergence; default 32 */
  readonly candidates?: number;
  /** by what the best of the measured shapes is chosen; default "kl" */
  readonly rank?: ShapeRank;
}

/** What options say about size. */
interface SizeRequest {
  readonly limits: SizeLimits;
  readonly grid: Grid | undefined;
  /** whether a shape is to be searched */
  readonly isSearch: boolean;
}

/**
 * Reads the options about size.
 *
 * @param isAsked whether other options ask for a shape
 * @throws USAGE for a text that is not a budget or a grid, and for options without a meaning
 */
export function sizeRequest(
  { budget, params, grid, candidates, rank }: ShapeSearchOptions,
  isAsked: boolean,
): SizeRequest {
  if (params !== undefined && !(params >= 1 && Number.isFinite(params)))
    throw new IsologitError("USAGE", `\`params\` is ${params}, expected a number of parameters such as 47e9`);
  const limits = {
    ...(budget !== undefined && { budget: parseBudget(budget) }),
    ...(params !== undefined && { parameters: params }),
  };
  const isSearch = !isAsked && (budget !== undefined || params !== undefined);
  const ofSearch = Object.entries({
    ...(isAsked && { params }),
    ...(!isSearch && { grid, candidates, rank }),
  });
  const [name] = ofSearch.find(([, value]) => value !== undefined) ?? [];
  if (name !== undefined) {
    const message = isAsked
      ? `\`${name}\` belongs to a search, and a shape was given`
      : `\`${name}\` belongs to a search, and no size was given`;
    const next = isAsked ? `leave out \`${name}\`, or the shape` : "add `budget` or `params`";
    throw new IsologitError("USAGE", message, {}, { next });
  }
  return { limits, grid: grid === undefined ? undefined : parseGrid(grid), isSearch };
}
