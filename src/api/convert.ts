/** `convert`: opens the source, plans, stages, runs, verifies, and publishes the destination only after that. */

import type { KeyObject } from "node:crypto";
import { calibrateModel } from "../calibrate/calibrate.ts";
import { type Certificate, encodeCertificate } from "../certificate/certificate.ts";
import { certificateReport, issueCertificate } from "../certificate/issue.ts";
import { readMatchingCertificate } from "../certificate/location.ts";
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
import { storeAt } from "../checkpoint/store.ts";
import { writeCertificate, writeRoot } from "../convert/amend.ts";
import type { PlanOptions } from "../convert/options.ts";
import type { OutsideSpan } from "../convert/outside-elements.ts";
import { refuseOverlap } from "../convert/overlap.ts";
import { bytesRead, bytesWritten, plannedCheckpoint } from "../convert/plan-summary.ts";
import { preparePlan, refuseOtherPlan, type WritableFormat } from "../convert/prepare.ts";
import { interruptedError, isResumable } from "../convert/resume.ts";
import { runPlan } from "../convert/run.ts";
import { belongsToOtherWeights } from "../convert/sidecars/restore.ts";
import { verifyStaged, watchStaged, withUnchangedFiles } from "../convert/staged-changes.ts";
import type { DroppedEntries, PaddingRows, Plan } from "../convert/types.ts";
import { ORIGIN_FOLDER } from "../core/carried-files.ts";
import { IsologitError, systemError } from "../core/errors.ts";
import { ignoreEvents, type Watch } from "../core/events.ts";
import type { StrictOptions } from "../core/finding.ts";
import type { Recipe } from "../families/family.ts";
import type { PromptOptions } from "../inference/prompts.ts";
import { isFinished, refuseExisting } from "../io/destination.ts";
import { fileStore } from "../io/file.ts";
import { lockDestination } from "../io/lock.ts";
import { Staging } from "../io/staging.ts";
import { type PluginsReport, pluginsReport } from "../plugins/plugin.ts";
import type { RecipeSearch } from "../sensitivity/report.ts";
import { searchRecipe } from "../sensitivity/search.ts";
import { readKey } from "../signing/ed25519.ts";
import type { SignOptions } from "../signing/options.ts";
import { type SignDestination, type SignedDestination, signerFor } from "../signing/sign-destination.ts";
import type { LimitOptions } from "../verify/limits.ts";
import type { CompareOptions, ReferenceOptions, VerifyLevel } from "../verify/options.ts";
import type { Proof, VerifyReport } from "../verify/report.ts";
import { isProven } from "../verify/verdict.ts";
import { type Preparation, prepareVerification, verifyModels } from "../verify/verify.ts";
import { version } from "../version.ts";
import { poolSize, WorkerPool } from "../workers/pool.ts";

export interface ConvertOptions
  extends PlanOptions,
    PromptOptions,
    LimitOptions,
    ReferenceOptions,
    StrictOptions,
    SignOptions {
  /** comparisons that run before the destination is published; default "logits" */
  readonly verify?: VerifyLevel;
  /** continue an interrupted conversion from its staged files */
  readonly resume?: boolean;
  /** replace a destination that exists */
  readonly overwrite?: boolean;
  /** path of a file that `plan --json` wrote: the conversion must have the same plan */
  readonly planFile?: string;
  /** bytes between two syncs to the disk; a killed run resumes from the last sync; default 256 MiB */
  readonly checkpointBytes?: number;
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
  readonly bytesRead: number;
  readonly bytesWritten: number;
  readonly seconds: number;
  readonly peakRssBytes: number;
  /** null if `verify` is "off" */
  readonly verification: VerifyReport | null;
  /** absent unless `recipe` is "auto" */
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
  if (options.bundle !== undefined && options.verify === "off")
    throw new IsologitError("USAGE", "`bundle` signs only what is verified, and `verify` is off");
  const sign = await signerFor(destination, options);
  if (sign === null) return await runConversion(source, destination, options, null, true);
  const { sign: _, ...unsigned } = options; // `sign` is the key of the bundle, and the bundle signs the certificate as one of the files
  return await runConversion(source, destination, unsigned, sign, true);
}

/**
 * @param restore restore the files that an earlier conversion carried in `isologit.origin/`
 * @param held the lock of the destination, if the caller holds the lock already
 */
async function runConversion(
  source: string,
  destination: string,
  options: ConvertOptions,
  sign: SignDestination | null,
  restore: boolean,
  held?: AsyncDisposable,
): Promise<ConvertReport> {
  const conversion = await prepareConversion(source, destination, options, restore);
  const { format, planned, verification, watch } = conversion;
  const { resume = false, overwrite = false, checkpointBytes, signal } = options;
  const target = { destination, container: format.writes.container, overwrite };
  if (!resume) await refuseExisting(target);
  await using lock = held ?? (await lockDestination(destination));
  if (resume && (await isFinished(target))) return await verifyFinished(conversion, sign);

  const [planId, totalBytes] = [planned.id, bytesWritten(planned)];
  const staging = await Staging.open({ ...target, planId, totalBytes, resume, checkpointBytes });
  let isWritten = false;
  try {
    const outside = await writeTensors(conversion, staging);
    isWritten = true;
    const staged = { staging, files: planned.placement.files, outside, watch, signal };
    if (verification === null) {
      await watchStaged(staged);
      return reportOf(conversion, null, { bytes: await publish(staging, watch) });
    }
    const proof = await verifyStaged(staged, () => verifyAt(staging.content, conversion, verification));
    if (planned.restored && belongsToOtherWeights(conversion.model.checkpoint, proof.report.roots.a)) {
      await staging.discard();
      const message = `${ORIGIN_FOLDER} belongs to other weights: no file is restored from there`;
      watch({ type: "warning", message });
      return await runConversion(source, destination, { ...options, resume: false }, sign, false, lock);
    }
    const { certificate, signed } = await certify(conversion, proof, staging, sign);
    if (certificate === null) {
      await staging[Symbol.asyncDispose]();
      return reportOf(conversion, proof.report, { bytes: staging.bytes, staged: staging.folder });
    }
    const bytes = await publish(staging, watch);
    await signed?.write();
    return reportOf(conversion, withCertificate(proof, certificate, signed), { bytes });
  } catch (error) {
    const isAborted = signal?.aborted === true;
    const known = isAborted ? interruptedError(destination) : systemError(error, { file: destination });
    const left = isResumable(known, isWritten) ? staging[Symbol.asyncDispose]() : staging.discard();
    await left.catch(() => {}); // the first error is reported
    throw known;
  }
}

/** What is known of a conversion before the first write. */
interface PreparedConversion {
  /** `performance.now()` at the start */
  readonly started: number;
  readonly source: string;
  readonly destination: string;
  readonly options: ConvertOptions;
  readonly watch: Watch;
  readonly format: WritableFormat;
  readonly model: LoadedModel;
  readonly planned: Plan;
  /** null unless `recipe` is "auto" */
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
async function prepareConversion(
  source: string,
  destination: string,
  options: ConvertOptions,
  restore: boolean,
): Promise<PreparedConversion> {
  const started = performance.now();
  const watch = options.watch ?? ignoreEvents;
  watch({ type: "phase", phase: "plan" });
  const { verify: level = "logits", ...shared } = options;
  const isVerified = level !== "off";
  const calibrate = (loaded: LoadedModel) => calibrateModel(loaded, options);
  const search = (loaded: LoadedModel, planWith: (recipe: Recipe) => Promise<Plan>) =>
    searchRecipe(loaded, options, planWith);
  const how = { searchRecipe: search, calibrate, restore, keep: true, checksums: isVerified };
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
  return { source, prepared: await prepareVerification(source, destination, options) };
}

/** Runs the plan in worker threads. @returns the written bytes outside the elements of tensors */
async function writeTensors(
  { planned, format, watch, options }: PreparedConversion,
  staging: Staging,
): Promise<readonly OutsideSpan[]> {
  const { allowOverflow = false, signal, threads, verify } = options;
  await using pool = new WorkerPool(poolSize(planned.peakBytes, threads));
  const running = { plan: planned, writer: format.writes, staging, pool };
  return await runPlan({ ...running, allowOverflow, alone: verify === "off", watch, signal });
}

/** Loads what was written, and compares it with the source: a verification must not trust the plan. */
async function verifyAt(
  path: string,
  { format, options, ownCertificate, complete }: PreparedConversion,
  { source, prepared }: Verification,
): Promise<Proof> {
  const { plugins, keepExtra, signal } = options;
  const written = await openCheckpoint(path, { plugins, keepExtra, formats: [format] });
  const proof = await verifyModels(source, await loadModelWithScales(written, options), {
    ...prepared.options,
    prepared,
    strictScales: true,
    inspectContent: async (content) => {
      refuseContradictedSource(ownCertificate, content.a);
      return findContradictions({ a: ownCertificate }, content, signal);
    },
  });
  await complete(signal);
  return proof;
}

/** Verifies a destination that an earlier run finished, and signs it. */
async function verifyFinished(
  conversion: PreparedConversion,
  sign: SignDestination | null,
): Promise<ConvertReport> {
  const { destination, verification } = conversion;
  const bytes = await sizeOf(destination);
  if (verification === null) return reportOf(conversion, null, { bytes, isRun: false });
  const proof = await verifyAt(destination, conversion, verification);
  const certificate = await readMatchingCertificate(destination, proof.report.roots.b);
  const signed = isProven(proof.report.verdict) ? await sign?.(destination) : undefined;
  await signed?.write();
  return reportOf(conversion, withCertificate(proof, certificate, signed), { bytes, isRun: false });
}

/** Writes the certificate into the staged files, and signs them. @returns null for a verdict that certifies nothing */
async function certify(
  { planned, format, key, options }: PreparedConversion,
  proof: Proof,
  staging: Staging,
  sign: SignDestination | null,
): Promise<{ readonly certificate: Certificate | null; readonly signed?: SignedDestination | undefined }> {
  await writeRoot(planned, staging, proof.report.roots.b);
  return await withUnchangedFiles(staging, async () => {
    const { id: plan, conversion } = planned;
    const store = await storeAt(staging.content);
    const { signal } = options;
    const issue = { plan, conversion, version, key, store, signal, ...pluginsReport(options) };
    const certificate = await issueCertificate(proof, issue);
    if (certificate === null) return { certificate };
    await writeCertificate(encodeCertificate(certificate), format.writes, staging, planned);
    return { certificate, signed: await sign?.(staging.content) };
  });
}

/** Lets the destination appear. @returns its size in bytes */
async function publish(staging: Staging, watch: Watch): Promise<number> {
  const { bytes } = staging;
  const left = await staging.finish();
  if (left !== null) {
    const reason = left instanceof Error ? left.message : left;
    const message = `${staging.folder} is no longer needed, but could not be removed: ${reason}`;
    watch({ type: "warning", message });
  }
  return bytes;
}

/** A report of a verification, with the certificate and the bundle that followed from it. */
const withCertificate = (
  { report }: Proof,
  certificate: Certificate | null,
  signed: SignedDestination | undefined,
): VerifyReport => ({
  ...report,
  certificate: certificate && certificateReport(certificate),
  ...(signed !== undefined && { bundle: signed.report }),
});

/**
 * @param bytes size of the destination
 * @param isRun this run read the source's tensors and wrote the destination's; default true
 * @param staged where the files are, if the destination does not appear
 */
function reportOf(
  { started, source, destination, options, format, model, planned, search }: PreparedConversion,
  verification: VerifyReport | null,
  { bytes, isRun = true, staged }: { bytes: number; isRun?: boolean; staged?: string },
): ConvertReport {
  const { a = null, b = null } = verification?.roots ?? {};
  return {
    plan: planned.id,
    exact: planned.exact,
    source: { address: source, format: model.checkpoint.format, root: a },
    destination: { path: destination, format: format.id, root: b, bytes },
    bytesRead: isRun ? bytesRead(planned) : 0,
    bytesWritten: isRun ? bytesWritten(planned) : 0,
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

/** Bytes on the disk, with the certificate. */
async function sizeOf(destination: string): Promise<number> {
  const files = await (await fileStore(destination)).list();
  return files.reduce((sum, { size }) => sum + size, 0);
}
