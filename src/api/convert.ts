/** `convert`: opens the source, plans, stages, runs, verifies, and publishes the destination only after that. */

import type { KeyObject } from "node:crypto";
import {
  findContradictions,
  type OwnCertificate,
  ownCertificate,
  refuseContradictedSource,
} from "../certificate/own-certificate.ts";
import type { ChunkChecks } from "../checkpoint/chunk-checks.ts";
import {
  type LoadedModel,
  loadModelWithScales,
  type ModelWithScales,
  matchModel,
  readScaleValues,
} from "../checkpoint/load.ts";
import { openCheckpoint } from "../checkpoint/open.ts";
import type { PlanOptions } from "../convert/options.ts";
import { refuseOverlap } from "../convert/overlap.ts";
import { plannedCheckpoint } from "../convert/plan-summary.ts";
import { type Choosing, preparePlan, refuseOtherPlan, type WritableFormat } from "../convert/prepare.ts";
import { belongsToOtherWeights } from "../convert/sidecars/restore.ts";
import type { DividedPlan } from "../convert/tasks/complete.ts";
import type { DroppedEntries, PaddingRows, Plan } from "../convert/types.ts";
import { ORIGIN_FOLDER } from "../core/carried-files.ts";
import { IsologitError } from "../core/errors.ts";
import { ignoreEvents, type Watch } from "../core/events.ts";
import type { StrictOptions } from "../core/finding.ts";
import type { PromptOptions } from "../inference/prompts.ts";
import { stagingPath } from "../io/destination.ts";
import { type PluginsReport, pluginsReport } from "../plugins/plugin.ts";
import type { RecipeSearch } from "../sensitivity/report.ts";
import { searchRecipe } from "../sensitivity/search.ts";
import { readKey } from "../signing/ed25519.ts";
import type { SignOptions } from "../signing/options.ts";
import { type SignDestination, signerFor } from "../signing/sign-destination.ts";
import { comparisonMark, readComparisons } from "../verify/bytes/comparison-file.ts";
import type { Comparisons } from "../verify/bytes/pieces.ts";
import type { LimitOptions } from "../verify/limits.ts";
import type { BegunLayers } from "../verify/logits.ts";
import type { CompareOptions, ReferenceOptions, VerifyLevel } from "../verify/options.ts";
import type { Proof, VerifyReport } from "../verify/report.ts";
import type { Preparation } from "../verify/verify.ts";
import { version } from "../version.ts";
import { type WriteOptions, type WrittenFiles, writeVerified } from "./write-verified.ts";

export interface ConvertOptions
  extends PlanOptions,
    PromptOptions,
    LimitOptions,
    ReferenceOptions,
    StrictOptions,
    SignOptions,
    WriteOptions {
  /** comparisons that run before the destination is published; default "logits" */
  readonly verify?: VerifyLevel;
  /** path of a file that `plan --json` wrote: the conversion must have the same plan */
  readonly planFile?: string;
}

export interface ConvertReport extends PluginsReport {
  /** id of the plan; equal ids give equal bytes */
  readonly plan: string;
  /** no tensor is recast */
  readonly exact: boolean;
  /** `root`: content root; null if it was not computed */
  readonly source: { readonly address: string; readonly format: string; readonly root: string | null };
  readonly destination: {
    readonly path: string;
    readonly format: string;
    readonly root: string | null;
    readonly bytes: number;
  };
  /** of the source, by this run to write; verification reads more */
  readonly bytesRead: number;
  /** of the destination, by this run */
  readonly bytesWritten: number;
  /** of the destination, by an earlier run that this one continued; this run compared them with their digests */
  readonly bytesResumed: number;
  readonly seconds: number;
  readonly peakRssBytes: number;
  /** null if `verify` is "off" */
  readonly verification: VerifyReport | null;
  /** absent unless `recipe` is "auto", and the recipe was not found when the plan file was written */
  readonly search?: RecipeSearch;
  readonly dropped: readonly DroppedEntries[];
  readonly padding: PaddingRows;
  /** set if the destination was not published because of the verdict: path of the staged files */
  readonly staged?: string;
}

/**
 * Writes a checkpoint in another format or dtype. Unless `verify` is "off", the written files are verified before they
 * appear at the destination.
 *
 * @param source path or `hf://` address of a checkpoint
 * @param destination path of the file or folder to write; its ending selects the format if `to` is absent
 * @param options format, dtype, verification, signature and limits of the machine
 * @returns the report; if the verdict is not `same` or `within`, the destination does not appear and `staged` is the path
 *   of the written files
 * @throws every code. After an error of exit status 2 or 3 before all bytes are written, and after an error about a source
 *   that is not a model, no file stays; after other errors the staged files stay for `resume`
 * @example
 * const report = await convert("./nemotron-h-8b", "model.isologit", { dtype: "bf16" });
 */
export async function convert(
  source: string,
  destination: string,
  options: ConvertOptions = {},
): Promise<ConvertReport> {
  return await convertPlanned(source, destination, options, {});
}

/** Tasks whose work a conversion completes. */
export interface MergedTasks extends DividedPlan {
  /** of the destination */
  readonly lock: AsyncDisposable;
}

/** What was done before a conversion of a plan file. */
interface DoneBefore {
  /** what forward passes of the source found when the conversion was planned */
  readonly chosen?: Choosing<RecipeSearch | null>;
  /** these wrote the tensors */
  readonly tasks?: MergedTasks;
}

/** As `convert`, for a plan file. */
export async function convertPlanned(
  source: string,
  destination: string,
  options: ConvertOptions,
  { chosen, tasks }: DoneBefore,
): Promise<ConvertReport> {
  refuseUnverifiedBundle(options);
  const sign = await signerFor(destination, options);
  const { sign: _, ...unsigned } = options; // `sign` is the key of the bundle, and the bundle signs the certificate as one of the files
  return await runConversion(source, destination, sign === null ? options : unsigned, {
    ...{ sign, chosen, tasks },
    held: tasks?.lock,
    restore: true,
  });
}

/** @throws USAGE */
function refuseUnverifiedBundle({ bundle, verify }: ConvertOptions): void {
  if (bundle !== undefined && verify === "off")
    throw new IsologitError("USAGE", "`bundle` signs only what is verified, and `verify` is off");
}

interface Running {
  readonly sign: SignDestination | null;
  /** restore the files that an earlier conversion carried in `isologit.origin/` */
  readonly restore: boolean;
  readonly chosen: DoneBefore["chosen"];
  readonly tasks: MergedTasks | undefined;
  /** the lock of the destination, if the caller holds the lock already */
  readonly held: AsyncDisposable | undefined;
}

async function runConversion(
  source: string,
  destination: string,
  options: ConvertOptions,
  { sign, restore, chosen, tasks, held }: Running,
): Promise<ConvertReport> {
  const conversion = await prepareConversion(source, destination, options, { restore, chosen });
  const { format, planned, verification, watch, key, model } = conversion;
  return await writeVerified({
    ...{ destination, planned, format, options, watch, key, sign },
    ...(held !== undefined && { held }),
    ...(tasks !== undefined && { tasks }),
    prove: verification && ((path) => verifyAt(path, conversion, verification, tasks !== undefined)),
    report: (report, written) => reportOf(conversion, report, written),
    retry: (roots) => {
      if (!planned.restored || !belongsToOtherWeights(model.checkpoint, roots.a)) return null;
      watch({
        type: "warning",
        message: `${ORIGIN_FOLDER} belongs to other weights: no file is restored from there`,
      });
      const { planFile: _, ...others } = options; // without the restored files it is another plan
      const again = { ...(tasks === undefined ? options : others), resume: false };
      const how = { sign, chosen, restore: false, tasks: undefined };
      return (held) => runConversion(source, destination, again, { ...how, held });
    },
  });
}

/** What is known of a conversion before the first write. */
export interface PreparedConversion {
  /** `performance.now()` at the start */
  readonly started: number;
  readonly source: string;
  readonly destination: string;
  readonly options: ConvertOptions;
  readonly watch: Watch;
  readonly format: WritableFormat;
  readonly model: LoadedModel;
  readonly planned: Plan;
  /** null unless this run searched for `recipe` "auto" */
  readonly search: RecipeSearch | null;
  /** signs the certificate */
  readonly key: KeyObject | undefined;
  /** of the source */
  readonly ownCertificate: OwnCertificate | null;
  /** null if `verify` is "off" */
  readonly verification: Verification | null;
  /** the last comparison of checksums of the source */
  readonly complete: ChunkChecks["complete"];
}

/** The source with its scales, and the prepared verification. */
interface Verification {
  readonly source: ModelWithScales;
  readonly prepared: Preparation;
}

/** Loads the source, plans, and refuses what could not be written or verified. */
export async function prepareConversion(
  source: string,
  destination: string,
  options: ConvertOptions,
  { restore, chosen }: { readonly restore: boolean; readonly chosen: DoneBefore["chosen"] },
): Promise<PreparedConversion> {
  const started = performance.now();
  const watch = options.watch ?? ignoreEvents;
  watch({ type: "phase", phase: "plan" });
  const { verify: level = "logits", ...shared } = options;
  const isVerified = level !== "off";
  // here and below, code that runs a model is loaded only where one runs
  const choosing: Choosing<RecipeSearch | null> = chosen ?? {
    searchRecipe: (loaded, planWith, writer) => searchRecipe(loaded, options, planWith, writer),
    calibrate: async (loaded) =>
      options.calibrate === undefined
        ? null
        : (await import("../calibrate/calibrate.ts")).calibrateModel(loaded, options),
  };
  const how = { ...choosing, restore, keep: true, checksums: isVerified };
  const {
    format,
    model,
    planned,
    complete,
    search: found,
  } = await preparePlan(source, destination, options, how);
  if (options.planFile !== undefined) await refuseOtherPlan(options.planFile, planned.id);
  if (!isVerified && options.sign !== undefined)
    throw new IsologitError("USAGE", "`sign` has no certificate to sign, since `verify` is off");
  const key = options.sign === undefined ? undefined : await readKey(options.sign, "private");
  const verification = isVerified ? await prepare(model, planned, { ...shared, verify: level }) : null;
  for (const message of planned.warnings) watch({ type: "warning", message });
  const certificate = await ownCertificate(source, model.checkpoint);
  if (!isVerified && certificate !== null) {
    const message = `${certificate.file} was not compared with the source, because \`verify\` is off`;
    watch({ type: "warning", message });
  }
  await refuseOverlap(source, destination);
  return {
    ...{ started, source, destination, options, watch, format, model, planned, complete },
    ...{ key, ownCertificate: certificate, verification, search: found },
  };
}

/** Refuses, before the first write, a conversion that could not be verified afterwards. */
async function prepare(model: LoadedModel, planned: Plan, options: CompareOptions): Promise<Verification> {
  const source = await readScaleValues(model);
  const destination = matchModel(plannedCheckpoint(planned), options);
  const { prepareVerification } = await import("../verify/verify.ts");
  return { source, prepared: await prepareVerification(source, destination, options) };
}

/** Opens and loads what was written: a verification must not trust the plan. */
export async function loadWritten(
  path: string,
  { format, options }: PreparedConversion,
): Promise<ModelWithScales> {
  const { plugins, keepExtra } = options;
  const written = await openCheckpoint(path, { plugins, keepExtra, formats: [format] });
  return await loadModelWithScales(written, options);
}

/** The mark of comparisons of the source with what was written. */
export async function markWritten(
  { planned, options }: PreparedConversion,
  source: ModelWithScales,
  written: ModelWithScales,
): Promise<string> {
  const how = { plan: planned.id, version, strictScales: true, ...pluginsReport(options) };
  return await comparisonMark(source.checkpoint.store, written.checkpoint.store, how);
}

/** What tasks found about the files as they are now. */
async function foundByTasks(
  conversion: PreparedConversion,
  source: ModelWithScales,
  written: ModelWithScales,
): Promise<{ readonly known: Comparisons; readonly begunBy: BegunLayers }> {
  const mark = await markWritten(conversion, source, written);
  const folder = stagingPath(conversion.destination);
  const { known, others } = await readComparisons(folder, mark);
  if (others.length > 0) {
    const tasks = others.map(({ index, count }) => `${index}/${count}`).join(", ");
    const message = `the files are not those that tasks compared (${tasks}): they are compared again`;
    conversion.watch({ type: "warning", message });
  }
  const { furthestState, stateMark } = await import("../verify/lockstep-state.ts");
  const begunBy: BegunLayers = (prompt, backend) => furthestState(folder, stateMark(mark, prompt, backend));
  return { known, begunBy };
}

/** Compares what was written with the source. */
async function verifyAt(
  path: string,
  conversion: PreparedConversion,
  { source, prepared }: Verification,
  isMerged: boolean,
): Promise<Proof> {
  const { ownCertificate, complete } = conversion;
  const { signal } = conversion.options;
  const written = await loadWritten(path, conversion);
  const { verifyModels } = await import("../verify/verify.ts");
  const proof = await verifyModels(source, written, {
    ...prepared.options,
    prepared,
    strictScales: true,
    ...(isMerged && (await foundByTasks(conversion, source, written))),
    inspectContent: async (content) => {
      refuseContradictedSource(ownCertificate, content.a);
      return findContradictions({ a: ownCertificate }, content, signal);
    },
  });
  await complete(signal);
  return proof;
}

function reportOf(
  { started, source, destination, options, format, model, planned, search }: PreparedConversion,
  verification: VerifyReport | null,
  { bytes, moved, staged }: WrittenFiles,
): ConvertReport {
  const { a = null, b = null } = verification?.roots ?? {};
  return {
    plan: planned.id,
    exact: planned.exact,
    source: { address: source, format: model.checkpoint.format, root: a },
    destination: { path: destination, format: format.id, root: b, bytes },
    bytesRead: moved.read,
    bytesWritten: moved.written,
    bytesResumed: moved.resumed,
    seconds: (performance.now() - started) / 1000,
    peakRssBytes: process.resourceUsage().maxRSS * 1024,
    verification,
    ...(search !== null && { search }),
    dropped: planned.dropped,
    padding: planned.padding,
    ...(staged !== undefined && { staged }),
    ...pluginsReport(options),
  };
}
