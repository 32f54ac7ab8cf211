/** `prune --sizes`: what a model of some shape needs for inference, or how many shapes fit. Only headers are read. */
import { loadModel } from "../../checkpoint/load.ts";
import { openCheckpoint } from "../../checkpoint/open.ts";
import type { RunOptions, SourceOptions } from "../../checkpoint/options.ts";
import { type PluginsReport, pluginsReport } from "../../plugins/plugin.ts";
import type { ShapeOptions } from "../../pruning/options.ts";
import { type SizeOptions, sizeRequest } from "../../pruning/search/options.ts";
import { shapeOf } from "../../pruning/select.ts";
import { type ServingRow, type SizesReport, servingTable, sizesOf } from "../../pruning/sizes/report.ts";
import { shapeAsked } from "../../pruning/sizes/shape.ts";

export interface SizesOptions extends ShapeOptions, SizeOptions, RunOptions, SourceOptions {
  /** add what the model needs in usual precisions, with usual contexts */
  readonly table?: boolean;
}

export interface ModelSizes extends SizesReport, PluginsReport {
  /** of the shape, or of the model as it is; absent unless `table` is set */
  readonly table?: readonly ServingRow[];
}

/**
 * The sizes of a shape of a model, or how many shapes are within a budget. Without either, those of the model as it is.
 *
 * @param source path or `hf://` address of a checkpoint
 * @param options the shape, or the budget
 * @throws USAGE for a shape that cannot be; PLAN_IMPOSSIBLE for a shape beyond the budget, and where no shape is within it; the
 *   errors of opening and matching a checkpoint
 * @example
 * const { search } = await sizes("hf://nvidia/Nemotron-H-56B-Base-8K", { budget: "memory=31.7GiB,weights=fp4,kv=fp8" });
 */
export async function sizes(source: string, options: SizesOptions = {}): Promise<ModelSizes> {
  const model = await loadModel(await openCheckpoint(source, options), options);
  const shape = shapeOf(model, options);
  const { limits, grid } = sizeRequest(options, shape !== null);
  const asked = shape && shapeAsked(model, shape);
  return {
    ...sizesOf(model, asked, limits, grid),
    ...(options.table === true && { table: servingTable(model, asked ?? undefined) }),
    ...pluginsReport(options),
  };
}
