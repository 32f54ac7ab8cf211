/** Executes a plan: bands in, casts and digests, bands out at known offsets. It decides nothing. */
import { crc32 } from "node:zlib";
import type { TensorDigests } from "../../formats/format.ts";
import { type Span, tensorKey } from "../core/checkpoint.ts";
import { bitsOf } from "../core/dtype.ts";
import { IsologitError, withLocation } from "../core/errors.ts";
import { findFirstDifference } from "../core/first-difference.ts";
import { sha256 } from "../core/hash.ts";
import { Sources } from "../core/read.ts";
import { replicaError } from "../families/match.ts";
import type { Replica } from "../families/model.ts";
import type { BandWorker } from "../workers/pool.ts";
import { gapsIn, type OutsideSpan, spansOutsideTensors } from "./outside-elements.ts";
import { storedTensors } from "./resume.ts";
import { groupJobs } from "./scatter.ts";
import { readRest, SealedSource } from "./sealed-source.ts";
import { TensorWork } from "./tensor-work.ts";
import type { ConversionRun, Plan } from "./types.ts";

/**
 * Fills the staged files; afterwards they are whole and synced, and not yet visible. Of what an earlier run left, only
 * tensors stay: side files are copied again, since the source's may have changed.
 *
 * @returns what was written beside the model's elements
 */
export async function runPlan(running: ConversionRun): Promise<readonly OutsideSpan[]> {
  const { plan, writer, staging, pool, watch } = running;
  const { placement, manifest } = plan;
  await using sources = new Sources(plan.source.checkpoint.store);
  const held = new SealedSource(plan.source, sources, running.signal);
  const places = new Map(placement.tensors.map((place) => [place.name, place]));
  for (const path of await staging.clean(placement.files.map(({ path }) => path))) {
    watch({ type: "warning", message: `${path} is in no plan, but among the staged files: it is removed` });
  }
  for (const { path, size } of placement.files) await staging.create(path, size);
  const stored = await storedTensors(running);
  const sealed = new Map<string, TensorDigests>(stored);
  const seal = (name: string, result: TensorDigests) => {
    sealed.set(name, result);
    staging.note({ name, ...result });
  };
  if (staging.isResumed) await clearGaps(running);
  for (const { file, offset, bytes } of placement.inline) await staging.writeAt(file, offset, bytes);
  for (const sidecar of manifest.sidecars) {
    if ("bytes" in sidecar) sealed.set(`file:${sidecar.path}`, { sha256: sha256(sidecar.bytes), crc32: [] });
  }

  const copies = placement.copies.map(({ file, offset, from }) => ({
    file,
    offset,
    from,
    name: copyName(plan, from),
  }));
  await pool.each(copies, async ({ file, offset, from, name }, lane) => {
    const work = new TensorWork(running, sources, held, lane);
    sealed.set(name, await work.copy(from, file, offset));
  });

  await pool.each(plan.source.replicas, (pair, lane) => refuseUnlike(running, sources, lane, pair));
  await pool.each([...groupJobs(plan.jobs, pool.slotBytes)], async (jobs, lane) => {
    const left = jobs.filter(({ tensor }) => !stored.has(tensorKey(tensor)));
    const work = new TensorWork(running, sources, held, lane);
    const results = left.length === 0 ? [] : await work.run(left, places);
    for (const [i, result] of results.entries()) seal(tensorKey(left[i]!.tensor), result);
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
    }
  });

  if (running.alone) await readRest(running, sources, held);

  const seals = writer.seal?.(manifest, placement, sealed) ?? [];
  for (const [i, { file, offset }] of placement.seals.entries())
    await staging.writeAt(file, offset, seals[i]!);
  await staging.settle();
  const names = copies.map(({ name }) => name);
  return spansOutsideTensors(plan, sealed, names, seals);
}

/** Zeros between what is placed: in a new file they are there already. */
async function clearGaps({ plan, staging }: ConversionRun): Promise<void> {
  for (const { file, offset, size } of gapsIn(plan))
    await staging.writeAt(file, offset, new Uint8Array(size));
}

/** Ranks that hold the same must agree to the byte: which of them would be the model? */
async function refuseUnlike(
  { plan, signal }: ConversionRun,
  sources: Sources,
  lane: BandWorker,
  replica: Replica,
): Promise<void> {
  const { tensors } = plan.source;
  const { tensor, of } = replica;
  const [one, other] = [tensors.get(tensor)!, tensors.get(of)!];
  const index = await findFirstDifference(one, other, sources, lane.buffers[0]!.bytes, signal);
  if (index < 0) return;
  const file = one.pieces[0]?.file;
  throw withLocation(replicaError(replica, index), file === undefined ? {} : { file });
}

/** What `seal` calls a copied side file: "file:" and its path. */
function copyName(plan: Plan, from: Span): string {
  const sidecar = plan.manifest.sidecars.find((one) => "span" in one && one.span === from);
  if (sidecar === undefined)
    throw new IsologitError("INTERNAL", `a copy of ${from.file} belongs to no side file`);
  return `file:${sidecar.path}`;
}
