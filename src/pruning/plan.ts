/** Plans the writing of a cut: a conversion whose source is the cut model. */
import type { Writer } from "../../formats/format.ts";
import type { LoadedModel } from "../checkpoint/load.ts";
import type { PlanOptions } from "../convert/options.ts";
import { planConversion } from "../convert/plan.ts";
import type { Plan } from "../convert/types.ts";
import { canonicalJson, sha256 } from "../core/hash.ts";
import type { Cut } from "./cut.ts";
import { withCutFiles } from "./cut-files.ts";
import type { CutModel } from "./cut-model.ts";
import { withRescaledGains } from "./rescaled-gains.ts";

interface CutTarget {
  readonly writer: Writer;
  readonly options: Pick<PlanOptions, "tp" | "pp" | "maxShardBytes" | "memoryBytes" | "threads" | "plugins">;
  readonly version: string;
  /** content root of the source */
  readonly root: string;
  /** the layers that went one at a time, in this order; absent: they were chosen at once */
  readonly order?: readonly number[];
}

/** @returns the plan, and the cut model with the files as the cut changes them */
export async function planCut(
  source: LoadedModel,
  view: CutModel,
  cut: Cut,
  { writer, options, version, root, order }: CutTarget,
): Promise<{ readonly plan: Plan; readonly model: LoadedModel }> {
  const { tp, pp, maxShardBytes, memoryBytes, threads, plugins } = options;
  const model = await withRescaledGains(await withCutFiles(view.model, source, cut), source, cut);
  const carried = source.checkpoint.carriedFiles?.root ?? "";
  const plan = await planConversion(model, {
    writer,
    options: {
      ...(tp !== undefined && { tp }),
      ...(pp !== undefined && { pp }),
      ...(maxShardBytes !== undefined && { maxShardBytes }),
      ...(memoryBytes !== undefined && { memoryBytes }),
      ...(threads !== undefined && { threads }),
      ...(plugins !== undefined && { plugins }),
    },
    version,
    restore: carried === "" || carried === root, // else these files belong to other weights
  });
  const { layers, ffn, mambaHeads, heads, hidden = null, rescaledGains = false } = cut;
  const kept = [layers, [...ffn], [...mambaHeads], [...heads], hidden];
  const chosen = {
    kept,
    ...(order !== undefined && { order }),
    ...(rescaledGains && { rescaledGains }),
  };
  return { plan: { ...plan, id: sha256(canonicalJson({ plan: plan.id, ...chosen })) }, model };
}
