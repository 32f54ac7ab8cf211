/** Stages what is planned, writes and verifies it, and lets it appear at its destination with its certificate. */
import type { KeyObject } from "node:crypto";
import { type Certificate, type CutRecord, encodeCertificate } from "../certificate/certificate.ts";
import { certificateReport, issueCertificate } from "../certificate/issue.ts";
import { readMatchingCertificate } from "../certificate/location.ts";
import type { RunOptions } from "../checkpoint/options.ts";
import { storeAt } from "../checkpoint/store.ts";
import { writeCertificate, writeRoot } from "../convert/amend.ts";
import { bytesRead, bytesWritten } from "../convert/plan-summary.ts";
import type { WritableFormat } from "../convert/prepare.ts";
import { interruptedError, isResumable } from "../convert/resume.ts";
import { type CompletedRun, runPlan } from "../convert/run.ts";
import { verifyStaged, watchStaged, withUnchangedFiles } from "../convert/staged-changes.ts";
import { completeTasks, type DividedPlan } from "../convert/tasks/complete.ts";
import { tensorsAtBorders } from "../convert/tasks/shares.ts";
import type { Plan } from "../convert/types.ts";
import { systemError } from "../core/errors.ts";
import type { Watch } from "../core/events.ts";
import { isFinished, refuseExisting } from "../io/destination.ts";
import { fileStore } from "../io/file.ts";
import { lockDestination } from "../io/lock.ts";
import { Staging } from "../io/staging.ts";
import { pluginsReport } from "../plugins/plugin.ts";
import type { SignDestination, SignedDestination } from "../signing/sign-destination.ts";
import type { Proof, VerifyReport } from "../verify/report.ts";
import { isProven } from "../verify/verdict.ts";
import { version } from "../version.ts";
import { WorkerPool } from "../workers/pool.ts";

/** Options of every command that writes a checkpoint. */
export interface WriteOptions extends RunOptions {
  /** continue an interrupted run from its staged files */
  readonly resume?: boolean;
  /** replace a destination that exists */
  readonly overwrite?: boolean;
  /** bytes between two syncs to the disk; a killed run resumes from the last sync; default 1 GiB */
  readonly checkpointBytes?: number;
  /** write large tensors past the page cache; "auto" (default): where system and file system can do that */
  readonly directIo?: "auto" | "off";
}

/** Bytes that a run moved, and those that it found complete. */
export interface MovedBytes {
  readonly read: number;
  readonly written: number;
  /** of the destination, written by an earlier run and compared with its digests by this one */
  readonly resumed: number;
}

/** What became of the files. */
export interface WrittenFiles {
  /** size of the destination */
  readonly bytes: number;
  /** what this run read of the source's tensors and side files, and wrote of the destination's, bytes */
  readonly moved: MovedBytes;
  /** where the files are, if the destination does not appear */
  readonly staged?: string;
}

/** What is written into the staging folder. */
interface StagedWrite {
  readonly planned: Plan;
  readonly format: WritableFormat;
  readonly options: WriteOptions & { readonly allowOverflow?: boolean };
  readonly watch: Watch;
  /** tasks that wrote the tensors; their files are never removed after an error */
  readonly tasks?: DividedPlan;
}

interface VerifiedWrite<R> extends StagedWrite {
  readonly destination: string;
  /** signs the certificate */
  readonly key?: KeyObject | undefined;
  readonly sign?: SignDestination | null;
  /** the lock of the destination, if the caller holds it already */
  readonly held?: AsyncDisposable;
  /** loads and verifies the files at a path; null: they are not verified */
  readonly prove: ((path: string) => Promise<Proof>) | null;
  /** what was kept of the source, for the certificate; known after `prove` */
  readonly cut?: () => CutRecord;
  readonly report: (verification: VerifyReport | null, written: WrittenFiles) => R;
  /** another run in place of this one, which is needed where the proof shows that the plan read foreign files */
  readonly retry?: (roots: VerifyReport["roots"]) => ((lock: AsyncDisposable) => Promise<R>) | null;
}

/**
 * @throws every code. After an error of exit status 2 or 3 before all bytes are written, and after an error about a source
 *   that is not a model, no file stays; after other errors the staged files stay for `resume`
 */
export async function writeVerified<R>(work: VerifiedWrite<R>): Promise<R> {
  const { destination, planned, options, watch, prove, report } = work;
  const { resume = false, overwrite = false, checkpointBytes, directIo, signal } = options;
  const target = { destination, container: work.format.writes.container, overwrite };
  if (!resume) await refuseExisting(target);
  await using lock = work.held ?? (await lockDestination(destination));
  if (resume && (await isFinished(target))) return await verifyFinished(work);

  const { tasks } = work;
  const [planId, totalBytes] = [tasks?.mark ?? planned.id, bytesWritten(planned)];
  const part = tasks === undefined ? undefined : "merge";
  const isDirect = directIo !== "off";
  const staged = { resume, checkpointBytes, isDirect, part } as const;
  const staging = await Staging.open({ ...target, ...staged, planId, totalBytes });
  let isWritten = false;
  try {
    const { outside, kept } = await fillStaging(work, prove !== null, staging);
    const moved = {
      read: bytesRead(planned) - kept.read,
      written: totalBytes - kept.written,
      resumed: kept.written,
    };
    isWritten = true;
    const staged = { staging, files: planned.placement.files, outside, watch, signal };
    if (prove === null) {
      await watchStaged(staged);
      return report(null, { bytes: await publish(staging, watch), moved });
    }
    const proof = await verifyStaged(staged, () => prove(staging.content));
    const retry = work.retry?.(proof.report.roots) ?? null;
    if (retry !== null) {
      await staging.discard();
      return await retry(lock);
    }
    const { certificate, signed } = await certify(work, proof, staging);
    if (certificate === null) {
      await staging[Symbol.asyncDispose]();
      return report(proof.report, { bytes: staging.bytes, moved, staged: staging.folder });
    }
    const bytes = await publish(staging, watch);
    await signed?.write();
    return report(withCertificate(proof, certificate, signed), { bytes, moved });
  } catch (error) {
    const isAborted = signal?.aborted === true;
    const known = isAborted ? interruptedError(destination) : systemError(error, { file: destination });
    const isKept = tasks !== undefined || isResumable(known, isWritten);
    const left = isKept ? staging[Symbol.asyncDispose]() : staging.discard();
    await left.catch(() => {}); // the first error is reported
    throw known;
  }
}

/** Tensors that lie inside the share of a task, so that no other host wrote into their pages. */
function inside(plan: Plan, count: number): (key: string) => boolean {
  const borders = tensorsAtBorders(plan, count);
  return (key) => !borders.has(key);
}

/**
 * Runs the plan, or what tasks left of it, in worker threads.
 *
 * @param isProved the staged files will be verified
 */
export async function fillStaging(
  { planned, format, watch, options, tasks }: StagedWrite,
  isProved: boolean,
  staging: Staging,
): Promise<CompletedRun> {
  const { allowOverflow = false, signal } = options;
  await using pool = new WorkerPool(planned.pool, watch);
  const trusted = tasks === undefined || !isProved ? undefined : inside(planned, tasks.count);
  const context = { plan: planned, writer: format.writes, staging, pool, trusted };
  const running = { ...context, allowOverflow, alone: !isProved, watch, signal };
  return await (tasks === undefined ? runPlan(running) : completeTasks(running, tasks));
}

/** Verifies a destination that an earlier run finished, and signs it. */
async function verifyFinished<R>({ destination, prove, sign, report }: VerifiedWrite<R>): Promise<R> {
  const bytes = await sizeOf(destination);
  const moved = { read: 0, written: 0, resumed: bytes };
  if (prove === null) return report(null, { bytes, moved });
  const proof = await prove(destination);
  const certificate = await readMatchingCertificate(destination, proof.report.roots.b);
  const signed = isProven(proof.report.verdict) ? await sign?.(destination) : undefined;
  await signed?.write();
  return report(withCertificate(proof, certificate, signed), { bytes, moved });
}

/** Writes the certificate into the staged files, and signs them. @returns null for a verdict that certifies nothing */
async function certify<R>(
  { planned, format, key, options, sign, cut }: VerifiedWrite<R>,
  proof: Proof,
  staging: Staging,
): Promise<{ readonly certificate: Certificate | null; readonly signed?: SignedDestination | undefined }> {
  await writeRoot(planned, staging, proof.report.roots.b);
  return await withUnchangedFiles(staging, async () => {
    const { id: plan, conversion } = planned;
    const store = await storeAt(staging.content);
    const { signal } = options;
    const issue = { plan, conversion, version, key, store, signal, ...pluginsReport(options) };
    const certificate = await issueCertificate(proof, { ...issue, ...(cut !== undefined && { cut: cut() }) });
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

/** Bytes on the disk, with the certificate. */
async function sizeOf(destination: string): Promise<number> {
  const files = await (await fileStore(destination)).list();
  return files.reduce((sum, { size }) => sum + size, 0);
}
