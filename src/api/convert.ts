/** `convert`: opens the source, plans, stages, runs, verifies, and publishes the destination only after that. */
import type { Format } from "../../formats/format.ts";
import { encodeCertificate } from "../certificate/certificate.ts";
import { certificateReport, issueCertificate } from "../certificate/issue.ts";
import { readMatchingCertificate } from "../certificate/location.ts";
import {
  findContradictions,
  ownCertificate,
  refuseContradictedSource,
} from "../certificate/own-certificate.ts";
import {
  type LoadedModel,
  loadModelWithScales,
  type ModelWithScales,
  matchModel,
  readScaleValues,
} from "../checkpoint/load.ts";
import { openCheckpoint } from "../checkpoint/open.ts";
import { storeAt } from "../checkpoint/store.ts";
import type { PlanOptions } from "../convert/options.ts";
import type { OutsideSpan } from "../convert/outside-elements.ts";
import { refuseOverlap } from "../convert/overlap.ts";
import { bytesRead, bytesWritten, plannedCheckpoint } from "../convert/plan-summary.ts";
import { preparePlan, refuseOtherPlan, type WritableFormat } from "../convert/prepare.ts";
import { runPlan } from "../convert/run.ts";
import { verifyStaged, watchStaged, withUnchangedFiles } from "../convert/staged-changes.ts";
import type { DroppedEntries, PaddingRows, Plan } from "../convert/types.ts";
import { ORIGIN_FOLDER, ORIGIN_ROOT } from "../core/carried-files.ts";
import { CERTIFICATE_FILE, type Checkpoint } from "../core/checkpoint.ts";
import { bytesOf } from "../core/dtype.ts";
import { type ErrorCode, IsologitError, systemError } from "../core/errors.ts";
import { ignoreEvents } from "../core/events.ts";
import type { StrictOptions } from "../core/finding.ts";
import type { PromptOptions } from "../inference/prompts.ts";
import { isFinished, refuseExisting, stagingPath } from "../io/destination.ts";
import { fileStore } from "../io/file.ts";
import { lockDestination } from "../io/lock.ts";
import { Staging } from "../io/staging.ts";
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

export interface ConvertReport {
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
  const seal = await signerFor(destination, options);
  if (seal === null) return await runConversion(source, destination, options, null, true);
  const { sign: _, ...unsigned } = options; // `sign` is the key of the bundle, and the bundle signs the certificate as one of the files
  return await runConversion(source, destination, unsigned, seal, true);
}

/**
 * @param restore restore the files that an earlier conversion carried in `isologit.origin/`
 * @param held the lock of the destination, if the caller holds the lock already
 */
async function runConversion(
  source: string,
  destination: string,
  options: ConvertOptions,
  seal: SignDestination | null,
  restore: boolean,
  held?: AsyncDisposable,
): Promise<ConvertReport> {
  const started = performance.now();
  const watch = options.watch ?? ignoreEvents;
  watch({ type: "phase", phase: "plan" });
  const level = options.verify ?? "logits";
  const { format, model, planned, complete } = await preparePlan(source, destination, options, {
    restore,
    keep: true,
    checksums: level !== "off",
  });
  if (options.planFile !== undefined) await refuseOtherPlan(options.planFile, planned.id);
  if (level === "off" && options.sign !== undefined)
    throw new IsologitError("USAGE", "`sign` has no certificate to sign, since `verify` is off");
  const key = options.sign === undefined ? undefined : await readKey(options.sign, "private");
  const { verify: _, ...shared } = options;
  const verification = level === "off" ? null : await prepare(model, planned, { ...shared, verify: level });
  for (const message of planned.warnings) watch({ type: "warning", message });
  const { checkpoint } = model;
  const certified = await ownCertificate(source, checkpoint);
  if (level === "off" && certified !== null) {
    const message = `${certified.file} was not compared with the source: --verify is off`;
    watch({ type: "warning", message });
  }
  await refuseOverlap(source, destination);

  const report = (
    verified: VerifyReport | null,
    bytes: number,
    written: boolean,
    staged?: string,
  ): ConvertReport => ({
    plan: planned.id,
    exact: planned.exact,
    source: { address: source, format: checkpoint.format, root: verified?.roots.a ?? null },
    destination: {
      path: destination,
      format: format.id,
      root: verified?.roots.b ?? null,
      bytes,
    },
    bytesRead: written ? bytesRead(planned) : 0,
    bytesWritten: written ? bytesWritten(planned) : 0,
    seconds: (performance.now() - started) / 1000,
    peakRssBytes: process.resourceUsage().maxRSS * 1024,
    verification: verified,
    dropped: planned.dropped,
    padding: planned.padding,
    ...(staged !== undefined && { staged }),
  });
  const verifyAt = async (path: string, { source, prepared }: Verification): Promise<Proof> => {
    const { families, keepExtra } = options;
    const written = await loadModelWithScales(
      await openCheckpoint(path, [format], { families, keepExtra }),
      options,
    );
    const proof = await verifyModels(source, written, {
      ...prepared.options,
      prepared,
      strictScales: true,
      inspectContent: async (content) => {
        refuseContradictedSource(certified, content.a);
        return findContradictions({ a: certified }, content, options.signal);
      },
    });
    await complete(options.signal);
    return proof;
  };

  const { container } = format.writes;
  const { resume = false, overwrite = false } = options;
  const target = { destination, container, overwrite };
  if (!resume) await refuseExisting(target);
  await using lock = held ?? (await lockDestination(destination));
  if (resume && (await isFinished(target))) {
    const bytes = await sizeOf(destination);
    if (verification === null) return report(null, bytes, false); // an earlier run finished the conversion
    const proof = await verifyAt(destination, verification);
    const certificate = await readMatchingCertificate(destination, proof.report.roots.b);
    const reported = certificate && certificateReport(certificate);
    const sealed = isProven(proof.report.verdict) ? await seal?.(destination) : undefined;
    await sealed?.write();
    return report({ ...proof.report, certificate: reported, ...bundleOf(sealed) }, bytes, false);
  }
  const staging = await Staging.open({
    ...target,
    planId: planned.id,
    totalBytes: bytesWritten(planned),
    resume,
    checkpointBytes: options.checkpointBytes,
  });
  const finish = async () => {
    const { bytes } = staging;
    const left = await staging.finish();
    const reason = left instanceof Error ? left.message : left;
    if (left !== null)
      watch({
        type: "warning",
        message: `${staging.folder} is no longer needed, but could not be removed: ${reason}`,
      });
    return bytes;
  };
  let isWritten = false;
  try {
    const outside = await write(planned, format, staging, options);
    isWritten = true;
    const { files } = planned.placement;
    const staged = { staging, files, outside, watch, signal: options.signal };
    if (verification === null) {
      await watchStaged(staged);
      return report(null, await finish(), true);
    }
    const proof = await verifyStaged(staged, () => verifyAt(staging.content, verification));
    if (planned.restored && belongsToOtherWeights(checkpoint, proof.report)) {
      await staging.discard();
      watch({
        type: "warning",
        message: `${ORIGIN_FOLDER} belongs to other weights: no file is restored from there`,
      });
      return await runConversion(source, destination, { ...options, resume: false }, seal, false, lock);
    }
    await writeRoot(planned, staging, proof.report);
    const { certificate, sealed } = await withUnchangedFiles(staging, async () => {
      const store = await storeAt(staging.content);
      const { signal } = options;
      const { conversion } = planned;
      const certificate = await issueCertificate(proof, {
        plan: planned.id,
        conversion,
        version,
        key,
        store,
        signal,
      });
      if (certificate === null) return { certificate, sealed: undefined };
      await putCertificate(encodeCertificate(certificate), format, staging, planned);
      return { certificate, sealed: await seal?.(staging.content) };
    });
    if (certificate === null) {
      await staging[Symbol.asyncDispose]();
      return report(proof.report, staging.bytes, true, staging.folder);
    }
    const bytes = await finish();
    await sealed?.write();
    const reported = certificateReport(certificate);
    return report({ ...proof.report, certificate: reported, ...bundleOf(sealed) }, bytes, true);
  } catch (error) {
    const known =
      options.signal?.aborted === true ? interrupted(destination) : systemError(error, { file: destination });
    const left = isResumable(known, isWritten) ? staging[Symbol.asyncDispose]() : staging.discard();
    await left.catch(() => {}); // the first error is reported
    throw known;
  }
}

/** The source with its scales, and the prepared verification. */
interface Verification {
  readonly source: ModelWithScales;
  readonly prepared: Preparation;
}

/** Refuses, before the first write, a conversion that could not be verified afterwards. */
async function prepare(model: LoadedModel, planned: Plan, options: CompareOptions): Promise<Verification> {
  const source = await readScaleValues(model);
  const destination = matchModel(plannedCheckpoint(planned), options);
  return { source, prepared: await prepareVerification(source, destination, options) };
}

const bundleOf = (sealed: SignedDestination | undefined) =>
  sealed === undefined ? {} : { bundle: sealed.report };

async function write(
  planned: Plan,
  format: Format,
  staging: Staging,
  options: ConvertOptions,
): Promise<readonly OutsideSpan[]> {
  const watch = options.watch ?? ignoreEvents;
  watch({ type: "phase", phase: "convert", totalBytes: sourceBytes(planned.source.checkpoint) });
  await using pool = new WorkerPool(poolSize(planned.peakBytes, options.threads));
  const { allowOverflow = false, signal } = options;
  const alone = options.verify === "off";
  return await runPlan({
    plan: planned,
    writer: format.writes!,
    staging,
    pool,
    allowOverflow,
    alone,
    watch,
    signal,
  });
}

/** Writes the content root, known after the verification. Without a root, a later conversion back compares only the config. */
async function writeRoot(
  { placement }: Plan,
  staging: Staging,
  verification: VerifyReport | null,
): Promise<void> {
  const path = ORIGIN_FOLDER + ORIGIN_ROOT;
  const root = verification?.roots.b ?? null;
  if (root === null || !placement.files.some((file) => file.path === path)) return;
  await staging.amend(path, 0, new TextEncoder().encode(`${root}\n`));
}

/** Whether the weights changed since `isologit.origin/` was written. */
function belongsToOtherWeights({ carriedFiles }: Checkpoint, verification: VerifyReport | null): boolean {
  const root = verification?.roots.a ?? null;
  return (
    carriedFiles !== undefined && carriedFiles.root !== "" && root !== null && carriedFiles.root !== root
  );
}

/** Writes the certificate into the staged folder, or after the last byte of the staged file. */
async function putCertificate(
  certificate: Uint8Array,
  { writes }: WritableFormat,
  staging: Staging,
  { placement }: Plan,
): Promise<void> {
  const [path, bytes] =
    writes.trailer === undefined ? [CERTIFICATE_FILE, certificate] : ["", writes.trailer(certificate)];
  const before = placement.files.find((file) => file.path === path)?.size ?? 0;
  await staging.amend(path, before, bytes);
}

export function sourceBytes(checkpoint: Checkpoint): number {
  return checkpoint.tensors.reduce(
    (sum, { dtype, shape, name }) => sum + bytesOf(dtype, shape, { tensor: name }),
    0,
  );
}

/** Faults of the source. To resume after them would mix two models or copy a wrong model. */
const OF_SOURCE: readonly ErrorCode[] = ["FILE_CHANGED", "CERTIFICATE_CONTRADICTED"];

/** Whether the staged files stay for `resume`. Completely written files stay, unless the source is not a model. */
function isResumable(error: unknown, isWritten: boolean): boolean {
  if (!(error instanceof IsologitError) || OF_SOURCE.includes(error.code)) return false;
  return isWritten || error.exit === 4 || error.exit === 5;
}

/** Bytes on the disk, with the certificate. */
async function sizeOf(destination: string): Promise<number> {
  const files = await (await fileStore(destination)).list();
  return files.reduce((sum, { size }) => sum + size, 0);
}

function interrupted(destination: string): IsologitError {
  return new IsologitError("INTERRUPTED", "the conversion was stopped", { file: stagingPath(destination) });
}
