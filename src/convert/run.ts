/** Executes a plan: reads bands, casts and digests them, writes them at the planned offsets. All decisions are in the plan. */
import { crc32 } from "node:zlib";
import type { TensorDigests } from "../../formats/format.ts";
import { type Span, tensorKey } from "../core/checkpoint.ts";
import { bitsOf } from "../core/dtype.ts";
import { IsologitError, withLocation } from "../core/errors.ts";
import { findFirstDifference } from "../core/first-difference.ts";
import { sha256 } from "../core/hash.ts";
import { Sources } from "../core/read.ts";
import { replicaError } from "../families/match.ts";
import { layerReporter, type Replica } from "../families/model.ts";
import type { BandWorker } from "../workers/pool.ts";
import { gapsIn, type OutsideSpan, spansOutsideTensors } from "./outside-elements.ts";
import { bytesRead, type KeptBytes, keptBytes } from "./plan-summary.ts";
import { findFinishedTensors } from "./resume.ts";
import type { Place } from "./tensors/read-band.ts";
import { groupJobs } from "./tensors/scatter.ts";
import { readUncomparedTensors, SealedSource } from "./tensors/sealed-source.ts";
import { TensorWork } from "./tensors/tensor-work.ts";
import type { ConversionRun, Job, Plan } from "./types.ts";

export interface CompletedRun {
  readonly outside: readonly OutsideSpan[];
  readonly kept: KeptBytes;
}

/**
 * Fills the staged files. Afterwards they are complete and synced, but the destination does not exist yet. A resumed run
 * keeps tensors of the earlier run and copies side files again, because those of the source may have changed.
 *
 * @returns the written bytes apart from the model's elements, and what an earlier run had done
 */
export async function runPlan(running: ConversionRun): Promise<CompletedRun> {
  const { plan, writer, staging, pool, watch } = running;
  const { placement, manifest } = plan;
  await using sources = new Sources(plan.source.checkpoint.store);
  const held = new SealedSource(plan.source, sources, running.signal);
  const places = new Map(placement.tensors.map((place) => [place.name, place]));
  for (const path of await staging.clean(placement.files.map(({ path }) => path))) {
    watch({ type: "warning", message: `${path} is not planned, but among the staged files: it is removed` });
  }
  for (const { path, size } of placement.files) await staging.create(path, size);
  const stored = await findFinishedTensors(running);
  const finished = plan.jobs.filter((job) => isStored(job, stored));
  const kept = keptBytes(plan, finished);
  watch({ type: "phase", phase: "convert", totalBytes: bytesRead(plan) - kept.read });
  const sealed = new Map<string, TensorDigests>(stored);
  if (staging.isResumed) await clearGaps(running);
  for (const { file, offset, bytes } of placement.inline) await staging.writeAt(file, offset, bytes);
  for (const sidecar of manifest.sidecars) {
    if ("bytes" in sidecar) sealed.set(`file:${sidecar.path}`, { sha256: sha256(sidecar.bytes), crc32: [] });
  }
  for (const [name, bytes] of plan.known) {
    const { file, offset } = places.get(name)!;
    await staging.writeAt(file, offset, bytes);
    sealed.set(name, { sha256: sha256(bytes), crc32: [crc32(bytes)] });
  }

  const copies = placement.copies.map(({ file, offset, from }) => ({
    file,
    offset,
    from,
    name: copyName(plan, from),
  }));
  await pool.each(copies, async ({ file, offset, from, name }, worker) => {
    const work = new TensorWork(running, sources, held, worker);
    sealed.set(name, await work.copy(from, file, offset));
  });

  await pool.each(plan.source.replicas, (pair, worker) => refuseUnlike(running, sources, worker, pair));
  await writeJobs({ running, sources, held, places, stored, sealed }, plan.jobs);

  if (running.alone) await readUncomparedTensors(running, sources, held);

  const seals = (await writer.seal?.(manifest, placement, sealed)) ?? [];
  for (const [i, { file, offset }] of placement.seals.entries())
    await staging.writeAt(file, offset, seals[i]!);
  await staging.settle();
  if (staging.isDirectRefused) {
    const message = "this file system does not write past the page cache: written through it";
    watch({ type: "note", message });
  }
  const names = copies.map(({ name }) => name);
  return { outside: spansOutsideTensors(plan, sealed, names, seals), kept };
}

/** What the jobs of a run share. */
interface JobContext {
  readonly running: ConversionRun;
  readonly sources: Sources;
  readonly held: SealedSource;
  readonly places: ReadonlyMap<string, Place>;
  /** what an earlier run wrote, by `tensorKey` */
  readonly stored: ReadonlyMap<string, TensorDigests>;
  /** receives the digests of each written tensor */
  readonly sealed: Map<string, TensorDigests>;
}

/** Runs jobs, except those whose tensors are stored. */
export async function writeJobs(
  { running, sources, held, places, stored, sealed }: JobContext,
  all: readonly Job[],
): Promise<void> {
  const { plan, staging, pool, watch } = running;
  const seal = (name: string, result: TensorDigests) => {
    sealed.set(name, result);
    staging.note({ name, ...result });
  };
  const reportLayer = layerReporter(plan.source, watch);
  const finish = async (jobs: readonly Job[], left: readonly Job[], results: readonly TensorDigests[]) => {
    for (const [i, { scales, ...result }] of results.entries()) {
      const { tensor, cast } = left[i]!;
      seal(tensorKey(tensor), result);
      if (scales !== undefined) seal(cast!.scaleTo!, scales); // only a cast with scales has them
    }
    for (const job of jobs) {
      const scale = sealed.get(tensorKey(job.tensor))?.source?.scale;
      if (job.cast?.scaleTo !== undefined && scale !== undefined) {
        const bytes = new Uint8Array(Float32Array.of(scale).buffer);
        const place = places.get(job.cast.scaleTo)!;
        await staging.writeAt(place.file, place.offset, bytes);
        sealed.set(job.cast.scaleTo, { sha256: sha256(bytes), crc32: [crc32(bytes)] });
      }
      const bytes = (job.count * bitsOf(job.sourceDtype)) / 8;
      watch({ type: "tensor", name: tensorKey(job.tensor), bytes });
      reportLayer(job.role);
    }
  };
  await pool.eachStarted([...groupJobs(all, pool.bufferBytes)], async (jobs, worker) => {
    const left = jobs.filter((job) => !isStored(job, stored));
    const work = new TensorWork(running, sources, held, worker);
    const digests = left.length === 0 ? Promise.resolve([]) : (await work.start(left, places)).digests;
    return { ended: digests.then((results) => finish(jobs, left, results)) };
  });
}

/** Whether an earlier run wrote a job's tensor, and the tensor of its scales if that is written with it. */
export function isStored({ tensor, cast }: Job, stored: ReadonlyMap<string, unknown>): boolean {
  const hasScales = cast?.blocks === undefined || stored.has(cast.scaleTo!);
  return stored.has(tensorKey(tensor)) && hasScales;
}

/** Writes zeros into the gaps of the placement. A new file has them already. */
async function clearGaps({ plan, staging }: ConversionRun): Promise<void> {
  for (const { file, offset, size } of gapsIn(plan))
    await staging.writeAt(file, offset, new Uint8Array(size));
}

/** Ranks that hold copies of a tensor must agree to the byte: else it is unknown which copy is the model. */
async function refuseUnlike(
  { plan, signal }: ConversionRun,
  sources: Sources,
  worker: BandWorker,
  replica: Replica,
): Promise<void> {
  const { tensors } = plan.source;
  const { tensor, of } = replica;
  const [copy, original] = [tensors.get(tensor)!, tensors.get(of)!];
  const index = await findFirstDifference(copy, original, sources, worker.buffers[0]!.bytes, signal);
  if (index < 0) return;
  const file = copy.pieces[0]?.file;
  throw withLocation(replicaError(replica, index), file === undefined ? {} : { file });
}

/** The key of a copied side file in the digests for `seal`: "file:" and its path. */
function copyName(plan: Plan, from: Span): string {
  const sidecar = plan.manifest.sidecars.find((file) => "span" in file && file.span === from);
  if (sidecar === undefined)
    throw new IsologitError("INTERNAL", `a copy of ${from.file} belongs to no side file`);
  return `file:${sidecar.path}`;
}
