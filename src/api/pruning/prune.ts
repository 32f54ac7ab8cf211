/** `prune`: cuts layers and units out of a model, proves the cut, and publishes it only after that. */
import { digestContent } from "../../certificate/content.ts";
import { ownCertificate, refuseContradictedSource } from "../../certificate/own-certificate.ts";
import { checkUndigestedChunks } from "../../checkpoint/chunk-checks.ts";
import {
  loadModel,
  loadModelWithScales,
  type ModelWithScales,
  matchModel,
  readScaleValues,
} from "../../checkpoint/load.ts";
import { openCheckpoint } from "../../checkpoint/open.ts";
import type { RunOptions, SourceOptions } from "../../checkpoint/options.ts";
import type { PlanOptions } from "../../convert/options.ts";
import { refuseOverlap } from "../../convert/overlap.ts";
import { plannedCheckpoint } from "../../convert/plan-summary.ts";
import { writtenFormat } from "../../convert/prepare.ts";
import { IsologitError } from "../../core/errors.ts";
import { ignoreEvents } from "../../core/events.ts";
import { memoryOf } from "../../inference/machine.ts";
import { type PromptsOptions, promptsOf } from "../../inference/prompt-groups/prompt-file.ts";
import { refuseExisting } from "../../io/destination.ts";
import { type PluginsReport, pluginsReport } from "../../plugins/plugin.ts";
import {
  architectureOf,
  type DroppedLayer,
  droppedLayers,
  type PrunedArchitecture,
} from "../../pruning/architecture.ts";
import { cutModel, prunableOf } from "../../pruning/cut-model.ts";
import type { Damage } from "../../pruning/damage.ts";
import { refuseDistillFiles, writeDistillFiles } from "../../pruning/distill.ts";
import type { ShapeOptions } from "../../pruning/options.ts";
import { planCut } from "../../pruning/plan.ts";
import { proveCut, refuseUnprovable } from "../../pruning/proof.ts";
import { gainFactor } from "../../pruning/rescaled-gains.ts";
import { openScores, refuseOtherModel } from "../../pruning/scores/stored-scores.ts";
import { findCut } from "../../pruning/search/find-cut.ts";
import { dropInRounds, type IterativeDepth, iterativeRequest } from "../../pruning/search/iterative-depth.ts";
import { maskedDamage } from "../../pruning/search/measure.ts";
import { type ShapeSearchOptions, sizeRequest } from "../../pruning/search/options.ts";
import type { ShapeSearch } from "../../pruning/search/report.ts";
import { needsScores, selectCut, shapeOf } from "../../pruning/select.ts";
import { fittingShapes, refuseExceeding, sizedShape } from "../../pruning/sizes/candidates.ts";
import { type BudgetedMemory, budgetedMemory } from "../../pruning/sizes/report.ts";
import { shapeAsked } from "../../pruning/sizes/shape.ts";
import type { VerifyReport } from "../../verify/report.ts";
import { version } from "../../version.ts";
import { poolSize, WorkerPool } from "../../workers/pool.ts";
import { type WriteOptions, type WrittenFiles, writeVerified } from "../write-verified.ts";
import { cutRecord } from "./cut-record.ts";

export interface PruneOptions
  extends ShapeOptions,
    ShapeSearchOptions,
    PromptsOptions,
    RunOptions,
    SourceOptions,
    WriteOptions,
    Pick<PlanOptions, "to" | "tp" | "pp" | "maxShardBytes"> {
  /** do everything but write */
  readonly dryRun?: boolean;
  /** folder for files that hand the pruned model to distillation with Model-Optimizer or Megatron-Bridge */
  readonly distill?: string;
}

export interface PruneReport extends PluginsReport {
  readonly source: { readonly address: string; readonly format: string; readonly root: string | null };
  /** null with `dryRun` */
  readonly destination: {
    readonly path: string;
    readonly format: string;
    readonly root: string | null;
    readonly bytes: number;
  } | null;
  /** of the source, by this run to write; scores and proof read more */
  readonly bytesRead: number;
  /** of the destination, by this run */
  readonly bytesWritten: number;
  /** of the destination, by an earlier run that this one continued */
  readonly bytesResumed: number;
  readonly seconds: number;
  readonly peakRssBytes: number;
  readonly architecture: PrunedArchitecture;
  readonly dropped: readonly DroppedLayer[];
  /** how `iterative` chose the layers; null without it */
  readonly depth: IterativeDepth | null;
  /** by what the gains of gated norms were multiplied; null: they are those of the source */
  readonly gainFactor: number | null;
  /** bytes for inference under the budget; null: no budget was given */
  readonly memory: BudgetedMemory | null;
  /** null: the shape was given */
  readonly search: ShapeSearch | null;
  /** what the cut does to the predictions; null where no forward pass ran */
  readonly damage: Damage | null;
  readonly verification: VerifyReport | null;
  /** set if the destination was not published because of the verdict: path of the staged files */
  readonly staged?: string;
}

/**
 * Writes a checkpoint of which only some layers and units are left. The written files are verified before they appear: every
 * element is one of the source, and the model computes what the source computes with the dropped parts silenced.
 *
 * @param source path or `hf://` address of a checkpoint
 * @param destination path of the file or folder to write; undefined with `dryRun`
 * @param options what stays, the scores by which it is chosen, format, prompt and limits of the machine
 * @returns the report; if the verdict is not `within`, the destination does not appear and `staged` is the path of the files
 * @throws USAGE for a shape that cannot be, and for scores that are missing or of another model; codes of exit status 3 for
 *   damaged scores; otherwise as `convert`
 * @example
 * const { damage } = await prune("./8b", "./7b", { ffn: 18432, importance: "importance.safetensors" });
 */
export async function prune(
  source: string,
  destination: string | undefined,
  options: PruneOptions = {},
): Promise<PruneReport> {
  const prepared = await preparePruning(source, destination, options);
  const { planned, format, watch } = prepared;
  if (destination === undefined || options.dryRun === true)
    return reportOf(prepared, prepared.damage, null, {
      bytes: 0,
      moved: { read: 0, written: 0, resumed: 0 },
    });
  let { damage } = prepared;
  const report = await writeVerified<PruneReport>({
    ...{ destination, planned, format, options, watch },
    prove: async (path) => {
      const proved = await proveAt(path, prepared);
      damage = proved.damage;
      return proved.proof;
    },
    cut: () => cutRecord(prepared, damage),
    report: (verification, written) => reportOf(prepared, damage, verification, written),
  });
  if (options.distill !== undefined && report.staged === undefined) {
    const student = { address: destination, parameters: report.architecture.parameters };
    await writeDistillFiles(options.distill, prepared.model, source, student, options.overwrite === true);
  }
  return report;
}

type Prepared = Awaited<ReturnType<typeof preparePruning>>;

/** Loads the source, chooses what stays, plans, and refuses what could not be written or proved. */
async function preparePruning(source: string, destination: string | undefined, options: PruneOptions) {
  const started = performance.now();
  const watch = options.watch ?? ignoreEvents;
  watch({ type: "phase", phase: "plan" });
  const isDry = options.dryRun === true;
  if (destination === undefined && !isDry)
    throw new IsologitError("USAGE", "the destination is missing", {}, { next: "name it, or add `dryRun`" });
  const opened = await openCheckpoint(source, { ...options, keep: true });
  const { checkpoint, complete } = checkUndigestedChunks(opened);
  const model = await loadModel(checkpoint, options);
  prunableOf(model);
  const shape = shapeOf(model, options);
  const { limits, grid, isSearch } = sizeRequest(options, shape !== null);
  if (shape === null && !isSearch) {
    const next =
      "give `layers`, `drop`, `ffn`, `mambaHeads`, `heads` or `hidden`, or a size: `budget` or `params`";
    throw new IsologitError("USAGE", "nothing says what stays", {}, { next });
  }
  const rounds = options.iterative === true ? iterativeRequest(shape, options) : null;
  if (shape !== null) refuseExceeding(sizedShape(model, shapeAsked(model, shape), limits), limits);
  const fitting = isSearch ? fittingShapes(model, limits, grid) : null;
  const format = writtenFormat(checkpoint, destination ?? "", options);
  const scored = shape !== null && rounds !== null ? { ...shape, counts: null } : shape; // rounds choose layers without scores
  if ((scored === null || needsScores(model, scored)) && options.importance === undefined) {
    const next = "record scores with `isologit importance SRC`, and give the file with `importance`";
    throw new IsologitError("USAGE", "scores must say which parts stay, and none were given", {}, { next });
  }
  await refuseDistillFiles(options, destination !== undefined && !isDry);
  if (destination !== undefined && !isDry) {
    const { overwrite = false, resume } = options;
    if (resume !== true) await refuseExisting({ destination, container: format.writes.container, overwrite }); // before the source is read
    await refuseOverlap(source, destination);
  }
  const chosen = await promptsOf(options, checkpoint, model.dims.vocab);
  const prompts = { first: chosen[0], all: chosen.map(({ ids }) => ids) };
  await using scores = options.importance === undefined ? null : await openScores(options.importance);
  const loaded = await readScaleValues(model);
  const content = await contentOf(loaded, options);
  const own = await ownCertificate(source, checkpoint);
  refuseContradictedSource(own, { model: loaded, ...content });
  if (scores !== null) refuseOtherModel(scores, content.root);
  const found = fitting === null ? null : await findCut(loaded, fitting, scores!, prompts.all, options); // scores were asked for above
  const depth = rounds === null ? null : await dropInRounds(loaded, rounds, prompts.all, options);
  const drop = depth?.rounds.map(({ layer }) => layer);
  const wanted = drop === undefined ? shape! : { ...shape!, counts: null, drop }; // without a shape there was a search
  const cut = found?.cut ?? (await selectCut(model, wanted, scores, options));
  const view = cutModel(model, cut);
  const planned = await planCut(model, view, cut, {
    writer: format.writes,
    options,
    version,
    root: content.root,
    ...(drop !== undefined && { order: drop }),
  });
  await refuseUnprovable(model, matchModel(plannedCheckpoint(planned.plan), options), cut, prompts, options);
  for (const message of planned.plan.warnings) watch({ type: "warning", message });
  const dropped = await droppedLayers(model, cut, depth ?? scores, options);
  const asked = found?.shape ?? shapeAsked(model, shape!);
  return {
    ...{
      started,
      source,
      destination,
      options,
      watch,
      format,
      model: loaded,
      content,
      own,
      cut,
      dropped,
      depth,
      complete,
    },
    ...{ planned: planned.plan, view: { ...view, model: planned.model }, prompts },
    memory: budgetedMemory(sizedShape(model, asked, limits), limits.budget),
    search: found?.search ?? null,
    /** as measured without a written file; null where only the proof measures it */
    damage: found?.damage ?? (isDry ? await maskedDamage(loaded, cut, prompts.all, options) : null),
  };
}

/** Reads the source once for its content root. */
async function contentOf(model: ModelWithScales, options: PruneOptions) {
  const { watch = ignoreEvents, signal, threads } = options;
  await using pool = new WorkerPool(poolSize(memoryOf(options), threads));
  watch({ type: "phase", phase: "check" });
  return await digestContent(
    model,
    pool,
    (bytes) => watch({ type: "advance", phase: "check", bytes }),
    signal,
  );
}

/** Loads what was written and proves that it is the cut: a proof must not trust the plan. */
async function proveAt(path: string, prepared: Prepared) {
  const { options, format, model, content, cut, view, prompts, complete, watch } = prepared;
  const { plugins, signal } = options;
  watch({ type: "phase", phase: "verify" });
  const written = await openCheckpoint(path, { plugins, formats: [format] });
  const loaded = await loadModelWithScales(written, options);
  const request = { source: model, root: content.root, cut, view, prompts, options };
  const proved = await proveCut(loaded, request);
  await complete(signal);
  return proved;
}

function reportOf(
  prepared: Prepared,
  damage: Damage | null,
  verification: VerifyReport | null,
  { bytes, moved, staged }: WrittenFiles,
): PruneReport {
  const { started, source, destination, options, format, model, content } = prepared;
  const { view, dropped, depth, cut, memory, search } = prepared;
  const isDry = destination === undefined || options.dryRun === true;
  return {
    source: { address: source, format: model.checkpoint.format, root: content.root },
    destination: isDry
      ? null
      : { path: destination, format: format.id, root: verification?.roots.b ?? null, bytes },
    bytesRead: moved.read,
    bytesWritten: moved.written,
    bytesResumed: moved.resumed,
    seconds: (performance.now() - started) / 1000,
    peakRssBytes: process.resourceUsage().maxRSS * 1024,
    architecture: architectureOf(view.model, cut),
    dropped,
    depth,
    gainFactor: gainFactor(model, cut),
    memory,
    search,
    damage,
    verification,
    ...(staged !== undefined && { staged }),
    ...pluginsReport(options),
  };
}
