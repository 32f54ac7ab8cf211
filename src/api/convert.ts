/** `convert` and `plan`: open, plan, stage, run, verify, and only then let the destination appear. */
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
import { bytesRead, bytesWritten, plannedCheckpoint } from "../convert/plan.ts";
import { preparePlan, refuseOtherPlan, type WritableFormat } from "../convert/prepare.ts";
import { runPlan } from "../convert/run.ts";
import { holdStill, proveStaged, watchStaged } from "../convert/staged-changes.ts";
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
import type { CompareOptions, VerifyLevel } from "../verify/options.ts";
import type { ReferenceOptions } from "../verify/reference.ts";
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
  readonly verify?: VerifyLevel;
  readonly resume?: boolean;
  readonly overwrite?: boolean;
  /** a file that `plan --json` wrote: the conversion must be that one */
  readonly planFile?: string;
  /** written bytes after which they are synced and a killed run can be resumed from there; default 256 MiB */
  readonly checkpointBytes?: number;
}

export interface ConvertReport {
  readonly plan: string;
  readonly exact: boolean;
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
  readonly verification: VerifyReport | null;
  readonly dropped: readonly DroppedEntries[];
  readonly padding: PaddingRows;
  /** set when the verdict kept the destination from appearing: where the staged files are */
  readonly staged?: string;
}

/**
 * Writes `source` in another format or dtype and, unless told otherwise, verifies what was written before it
 * appears. A verdict other than `same` or `within` is reported, with the files left in `staged`.
 *
 * @throws every code. Nothing is left behind after those of exit status 2 and 3 until all is written, and after those
 *   that speak of a source that is no model; after others the staged files wait for `resume`
 */
export async function convert(
  source: string,
  destination: string,
  options: ConvertOptions = {},
): Promise<ConvertReport> {
  if (options.bundle !== undefined && options.verify === "off")
    throw new IsologitError("USAGE", "`bundle` signs only what is verified, and `verify` is off");
  const seal = await signerFor(destination, options);
  if (seal === null) return await converted(source, destination, options, null, true);
  const { sign: _, ...unsigned } = options; // the signature is the bundle's, and the certificate is one of the files
  return await converted(source, destination, unsigned, seal, true);
}

/**
 * @param restore take back what an earlier conversion kept in `isologit.origin/`
 * @param held the destination's lock, where it is taken already
 */
async function converted(
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
    const message = `${certified.file} was not held against the source: --verify is off`;
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
    if (verification === null) return report(null, bytes, false); // an earlier run finished: nothing to do but look
    const proof = await verifyAt(destination, verification);
    const certificate = await readMatchingCertificate(destination, proof.report.roots.b);
    const told = certificate && certificateReport(certificate);
    const sealed = isProven(proof.report.verdict) ? await seal?.(destination) : undefined;
    await sealed?.write();
    return report({ ...proof.report, certificate: told, ...bundleOf(sealed) }, bytes, false);
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
      watch({ type: "warning", message: `${staging.folder} is no longer needed, but stays: ${reason}` });
    return bytes;
  };
  let isWritten = false;
  try {
    const beside = await write(planned, format, staging, options);
    isWritten = true;
    const { files } = planned.placement;
    const staged = { staging, files, beside, watch, signal: options.signal };
    if (verification === null) {
      await watchStaged(staged);
      return report(null, await finish(), true);
    }
    const proof = await proveStaged(staged, () => verifyAt(staging.content, verification));
    if (planned.restored && isAnothers(checkpoint, proof.report)) {
      await staging.discard();
      watch({
        type: "warning",
        message: `${ORIGIN_FOLDER} belongs to other weights: nothing of it is restored`,
      });
      return await converted(source, destination, { ...options, resume: false }, seal, false, lock);
    }
    await writeRoot(planned, staging, proof.report);
    const { certificate, sealed } = await holdStill(staging, async () => {
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
    const told = certificateReport(certificate);
    return report({ ...proof.report, certificate: told, ...bundleOf(sealed) }, bytes, true);
  } catch (error) {
    const known =
      options.signal?.aborted === true ? interrupted(destination) : systemError(error, { file: destination });
    const left = isResumable(known, isWritten) ? staging[Symbol.asyncDispose]() : staging.discard();
    await left.catch(() => {}); // what went wrong first is what is told
    throw known;
  }
}

/** The source with its scales, and what its verification needs. */
interface Verification {
  readonly source: ModelWithScales;
  readonly prepared: Preparation;
}

/** Refuses, before anything is written, what could not be verified after it. */
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

/** The root is known only now; without a verification it stays unknown, and the way home trusts the config alone. */
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

/** Were the weights beside `isologit.origin/` changed since it was written? */
function isAnothers({ carriedFiles }: Checkpoint, verification: VerifyReport | null): boolean {
  const root = verification?.roots.a ?? null;
  return (
    carriedFiles !== undefined && carriedFiles.root !== "" && root !== null && carriedFiles.root !== root
  );
}

/** In the staged folder, or behind the staged file. */
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

/** Faults of a source that was read. To go on from what was written of it would mix two models, or copy a wrong one. */
const OF_SOURCE: readonly ErrorCode[] = ["FILE_CHANGED", "CERTIFICATE_CONTRADICTED"];

/** Whether staged files wait for `resume`. What is wholly written stays, unless its source is no model. */
function isResumable(error: unknown, isWritten: boolean): boolean {
  if (!(error instanceof IsologitError) || OF_SOURCE.includes(error.code)) return false;
  return isWritten || error.exit === 4 || error.exit === 5;
}

/** Bytes on the disk, its certificate included. */
async function sizeOf(destination: string): Promise<number> {
  const files = await (await fileStore(destination)).list();
  return files.reduce((sum, { size }) => sum + size, 0);
}

function interrupted(destination: string): IsologitError {
  return new IsologitError("INTERRUPTED", "the conversion was stopped", { file: stagingPath(destination) });
}
