/** The work of one worker on one tensor or one side file: read bands, cast them, digest them, write them. */

import type { TensorDigests } from "../../formats/format.ts";
import { overflowError, scaleOf } from "../cast/cast.ts";
import { readScale } from "../checkpoint/scales.ts";
import { type Span, tensorKey } from "../core/checkpoint.ts";
import { bitsOf, type FloatDType, isFp8, widthOf } from "../core/dtype.ts";
import { IsologitError, withLocation } from "../core/errors.ts";
import { type Band, bandsOf, gatherExtents } from "../core/gather.ts";
import type { Sources } from "../core/read.ts";
import { pipelineBands } from "../workers/pipeline.ts";
import type { BandBuffer, BandWorker } from "../workers/pool.ts";
import { type ScatterPart, scatterColumns } from "./scatter.ts";
import type { SealedSource } from "./sealed-source.ts";
import type { ConversionRun, Job } from "./types.ts";

interface Place {
  readonly file: string;
  readonly offset: number;
}

/** Copies a side file, or writes one tensor, or several that are columns of one matrix. */
export class TensorWork {
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

/** The stored tensor of the source that a job draws on first; undefined where all of it is padding. */
function sourceOf({ elementSource }: Job): string | undefined {
  const role = elementSource.moves.find(({ of }) => of !== null)?.of ?? undefined;
  return role === undefined ? undefined : elementSource.roles.get(role)![0]!.of!;
}

function ofColumns({ job, place }: { job: Job; place: Place }): ScatterPart {
  if (job.columns === undefined) throw new IsologitError("INTERNAL", "a job without columns is scattered");
  return { job: { ...job, columns: job.columns }, place };
}
