/** Executes a plan: bands in, casts and digests, bands out at known offsets. It decides nothing. */
import { crc32 } from "node:zlib";
import type { TensorDigests, Writer } from "../../formats/format.ts";
import { overflowError, scaleOf } from "../cast/cast.ts";
import { type Span, tensorKey } from "../core/checkpoint.ts";
import { sha256 } from "../core/content-root.ts";
import { bitsOf, type FloatDType, isFp8, widthOf } from "../core/dtype.ts";
import { IsologitError, withLocation } from "../core/errors.ts";
import type { Watch } from "../core/events.ts";
import { findFirstDifference } from "../core/first-difference.ts";
import { type Band, bandsOf, gatherExtents } from "../core/mapping/gather.ts";
import { Sources } from "../core/read.ts";
import { replicaError } from "../families/match.ts";
import type { Replica } from "../families/model.ts";
import type { Staging } from "../io/staging.ts";
import { readScale } from "../quantization/compressed-tensors.ts";
import { pipelineBands } from "../workers/pipeline.ts";
import type { BandBuffer, BandWorker, WorkerPool } from "../workers/pool.ts";
import type { Job } from "./jobs.ts";
import { gapsIn, type OutsideSpan, spansOutsideTensors } from "./outside-elements.ts";
import type { Plan } from "./plan.ts";
import { storedTensors } from "./resume.ts";
import { groupJobs, type ScatterPart, scatterColumns } from "./scatter.ts";
import { readRest, SealedSource } from "./sealed-source.ts";

export interface ConversionRun {
  readonly plan: Plan;
  readonly writer: Writer;
  readonly staging: Staging;
  readonly pool: WorkerPool;
  readonly allowOverflow: boolean;
  /** no verification will read the source again: what it has sealed is compared here, to the last tensor */
  readonly alone: boolean;
  readonly watch: Watch;
  readonly signal: AbortSignal | undefined;
}

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
    const work = new Work(running, sources, held, lane);
    sealed.set(name, await work.copy(from, file, offset));
  });

  await pool.each(plan.source.replicas, (pair, lane) => refuseUnlike(running, sources, lane, pair));
  await pool.each([...groupJobs(plan.jobs, pool.slotBytes)], async (jobs, lane) => {
    const left = jobs.filter(({ tensor }) => !stored.has(tensorKey(tensor)));
    const work = new Work(running, sources, held, lane);
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

interface Place {
  readonly file: string;
  readonly offset: number;
}

function ofColumns({ job, place }: { job: Job; place: Place }): ScatterPart {
  if (job.columns === undefined) throw new IsologitError("INTERNAL", "a job without columns is scattered");
  return { job: { ...job, columns: job.columns }, place };
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

/** The stored tensor of the source that a job draws on first; undefined where all of it is padding. */
function sourceOf({ elementSource }: Job): string | undefined {
  const role = elementSource.moves.find(({ of }) => of !== null)?.of ?? undefined;
  return role === undefined ? undefined : elementSource.roles.get(role)![0]!.of!;
}

/** What `seal` calls a copied side file: "file:" and its path. */
function copyName(plan: Plan, from: Span): string {
  const sidecar = plan.manifest.sidecars.find((one) => "span" in one && one.span === from);
  if (sidecar === undefined)
    throw new IsologitError("INTERNAL", `a copy of ${from.file} belongs to no side file`);
  return `file:${sidecar.path}`;
}

/** One lane's work on one tensor or side file. */
class Work {
  readonly #running: ConversionRun;
  readonly #sources: Sources;
  readonly #held: SealedSource;
  readonly #lane: BandWorker;
  /** the format keeps checksums: a folder of safetensors has no place for them */
  readonly #sealed: boolean;

  constructor(running: ConversionRun, sources: Sources, held: SealedSource, lane: BandWorker) {
    this.#running = running;
    this.#sources = sources;
    this.#held = held;
    this.#lane = lane;
    this.#sealed = running.writer.seal !== undefined;
  }

  async copy(from: Span, file: string, offset: number): Promise<TensorDigests> {
    const { staging, signal } = this.#running;
    const lane = this.#lane;
    await pipelineBands(
      lane,
      bandsOf(from.size, 1, lane.buffers[0]!.bytes.byteLength),
      async ({ lo, hi }, slot) => {
        signal?.throwIfAborted();
        await this.#sources.use(from.file, (source) =>
          source.readInto(slot.bytes.subarray(0, hi - lo), from.offset + lo, signal),
        );
      },
      async ({ lo, hi }, slot) => {
        const digested = lane.call({ op: "band", at: slot.at, size: hi - lo, sealed: this.#sealed });
        await Promise.all([digested, staging.writeAt(file, offset + lo, slot.bytes.subarray(0, hi - lo))]);
      },
    );
    const { sha256, crc32 } = await lane.call({ op: "finish" });
    await this.#held.refuse(this.#held.sealAt(from), { sha256 });
    return { sha256, crc32 };
  }

  /** One job, or several whose columns are of one matrix; what is sealed of each. */
  async run(jobs: readonly Job[], places: ReadonlyMap<string, Place>): Promise<readonly TensorDigests[]> {
    const [job] = jobs as [Job];
    const parts = jobs.map((one) => ({ job: one, place: places.get(tensorKey(one.tensor))! }));
    try {
      if (jobs.length > 1)
        return await scatterColumns(this.#running, this.#sources, this.#lane, parts.map(ofColumns));
      const { place } = parts[0]!;
      return [await (job.cast === undefined ? this.#keep(job, place) : this.#cast(job, job.cast, place))];
    } catch (error) {
      const tensor = sourceOf(job);
      if (tensor === undefined) throw error; // nothing is read: the error names the file that was written
      throw withLocation(error, {
        tensor,
        file: this.#running.plan.source.tensors.get(tensor)!.pieces[0]!.file,
      });
    }
  }

  async #keep(job: Job, place: { file: string; offset: number }): Promise<TensorDigests> {
    const { staging, watch } = this.#running;
    const lane = this.#lane;
    const width = bitsOf(job.sourceDtype) / 8;
    const seal = this.#held.sealOf(job);
    await pipelineBands(
      lane,
      bandsOf(job.count, width, lane.buffers[0]!.bytes.byteLength),
      (band, slot) => this.#read(job, band, slot),
      async ({ lo, hi }, slot) => {
        const bytes = slot.bytes.subarray(0, (hi - lo) * width);
        const digested = lane.call({ op: "band", at: slot.at, size: bytes.byteLength, sealed: this.#sealed });
        await Promise.all([digested, staging.writeAt(place.file, place.offset + lo * width, bytes)]);
        watch({ type: "advance", phase: "convert", bytes: bytes.byteLength });
      },
    );
    const { sha256, crc32 } = await lane.call({ op: "finish" });
    await this.#held.refuse(seal, { sha256, ...(this.#sealed && { crc32 }) });
    return { sha256, crc32 };
  }

  async #cast(
    job: Job,
    cast: NonNullable<Job["cast"]>,
    place: { file: string; offset: number },
  ): Promise<TensorDigests> {
    const { staging, watch, allowOverflow, plan, alone } = this.#running;
    const lane = this.#lane;
    const seal = this.#held.sealOf(job);
    const ofSource = this.#sealed || (alone && seal?.sha256 !== undefined);
    const { from, to } = cast;
    const [read, written] = [widthOf(from), widthOf(to)];
    const runs = cast.sourceScales ?? [{ lo: 0, hi: job.count }];
    const scales = new Map<string, number>();
    for (const { scale: name } of cast.sourceScales ?? []) {
      if (!scales.has(name)) scales.set(name, await readScale(plan.source.tensors.get(name)!, this.#sources));
    }
    const only = scales.size === 1 ? [...scales.values()][0]! : null;
    // FP8 is written to dialects that join no tensors, so that its source has one scale
    const amax = isFp8(to) ? (await this.#amax(job, from)) * (only ?? 1) : null;
    const scale = amax === null || !isFp8(to) ? null : scaleOf(Math.fround(amax), to);
    await pipelineBands(
      lane,
      scaledBands(runs, read + written, lane.buffers[0]!.bytes.byteLength),
      (band, slot) => this.#read(job, band, slot),
      async ({ lo, hi, scale: named }, slot) => {
        const sourceScale = named === undefined ? null : scales.get(named)!;
        const [count, size, toSize] = [hi - lo, (hi - lo) * read, (hi - lo) * written];
        const toAt = slot.at + size;
        const call = { from, to, scale, sourceScale, toAt, toSize, count };
        const { overflowAt } = await lane.call({
          op: "band",
          at: slot.at,
          size,
          cast: call,
          sealed: this.#sealed,
          ofSource,
        });
        if (overflowAt >= 0 && !allowOverflow) throw shifted(overflowError(to, overflowAt), lo);
        await staging.writeAt(
          place.file,
          place.offset + lo * written,
          slot.bytes.subarray(size, size + toSize),
        );
        watch({ type: "advance", phase: "convert", bytes: size });
      },
    );
    const { sha256, crc32, source } = await lane.call({ op: "finish" });
    if (ofSource) await this.#held.refuse(seal, { sha256: source });
    return {
      sha256,
      crc32,
      source: {
        ...(this.#sealed && { sha256: source }),
        ...(amax !== null && scale !== null && { amax, scale }),
      },
    };
  }

  /** Largest |stored| of the whole tensor. The tensor is read again to be cast, as a rule from the page cache. */
  async #amax(job: Job, dtype: FloatDType): Promise<number> {
    const lane = this.#lane;
    let amax = 0;
    await pipelineBands(
      lane,
      bandsOf(job.count, widthOf(dtype), lane.buffers[0]!.bytes.byteLength),
      (band, slot) => this.#read(job, band, slot),
      async ({ lo, hi }, slot) => {
        try {
          amax = Math.max(amax, await lane.call({ op: "amax", dtype, at: slot.at, count: hi - lo }));
        } catch (error) {
          throw shifted(error, lo);
        }
      },
    );
    return amax;
  }

  async #read(job: Job, band: Band, slot: BandBuffer): Promise<void> {
    const { plan, signal } = this.#running;
    signal?.throwIfAborted();
    const width = bitsOf(job.sourceDtype) / 8;
    const extents = gatherExtents(job.elementSource, band, plan.source.tensors, width);
    const target = slot.bytes.subarray(0, (band.hi - band.lo) * width);
    const filled = extents.reduce((sum, { size }) => sum + size, 0);
    if (filled < target.byteLength) target.fill(0);
    await this.#sources.read(extents, target, signal);
  }
}

/** Bands of each run; none crosses from one scale to the next. */
function* scaledBands(
  runs: readonly { readonly lo: number; readonly hi: number; readonly scale?: string }[],
  width: number,
  maxBytes: number,
) {
  for (const run of runs) {
    for (const { lo, hi } of bandsOf(run.hi - run.lo, width, maxBytes)) {
      yield { ...run, lo: run.lo + lo, hi: run.lo + hi };
    }
  }
}

/** A worker's error names an index within its band; people need the one within the tensor. */
function shifted(error: unknown, lo: number): unknown {
  if (!(error instanceof IsologitError) || error.at.index === undefined) return error;
  const index = error.at.index + lo;
  return new IsologitError(error.code, `${error.message} at index ${index}`, { ...error.at, index });
}
