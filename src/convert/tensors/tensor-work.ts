/** The work of one worker on one tensor or one side file: read bands, cast them, digest them, write them. */

import type { TensorDigests } from "../../../formats/format.ts";
import type { BlockScales } from "../../cast/blocks.ts";
import { overflowError, scaleOf } from "../../cast/cast.ts";
import { readScale } from "../../checkpoint/scales/values.ts";
import { type Span, tensorKey } from "../../core/checkpoint.ts";
import { bitsOf, blockElements, type FloatDType, isFloat, isFp8, widthOf } from "../../core/dtype.ts";
import { IsologitError } from "../../core/errors.ts";
import { type Band, bandsOf } from "../../core/gather.ts";
import type { Sources } from "../../core/read.ts";
import type { CallResults } from "../../workers/calls.ts";
import { pipelineBands, type StartedBands, startBands } from "../../workers/pipeline.ts";
import type { BandBuffer, BandWorker } from "../../workers/pool.ts";
import { isHeld } from "../held-tensors.ts";
import type { ConversionRun, Job } from "../types.ts";
import { castBlocks } from "./block-cast.ts";
import { directBands, shiftedTo } from "./direct-bands.ts";
import { type Place, readBand, shiftIndex, withSource } from "./read-band.ts";
import { type ScatterPart, scatterColumns } from "./scatter.ts";
import type { SealedSource } from "./sealed-source.ts";
import { sharedAmax } from "./shared-amax.ts";
import type { StartedTensors } from "./started.ts";

/** Copies a side file, or writes one tensor, or several that are columns of one matrix. */
export class TensorWork {
  readonly #running: ConversionRun;
  readonly #sources: Sources;
  readonly #held: SealedSource;
  readonly #worker: BandWorker;
  /** the format stores checksums; a folder of safetensors does not */
  readonly #sealed: boolean;

  constructor(running: ConversionRun, sources: Sources, held: SealedSource, worker: BandWorker) {
    this.#running = running;
    this.#sources = sources;
    this.#held = held;
    this.#worker = worker;
    this.#sealed = running.writer.seal !== undefined;
  }

  async copy(from: Span, file: string, offset: number): Promise<TensorDigests> {
    const { staging, watch, signal } = this.#running;
    const worker = this.#worker;
    await pipelineBands(
      worker,
      bandsOf(from.size, 1, worker.buffers[0]!.bytes.byteLength),
      async ({ lo, hi }, buffer) => {
        signal?.throwIfAborted();
        await this.#sources.use(from.file, (source) =>
          source.readInto(buffer.bytes.subarray(0, hi - lo), from.offset + lo, signal),
        );
      },
      async ({ lo, hi }, buffer) => {
        const digested = worker.call({ op: "band", at: buffer.at, size: hi - lo, sealed: this.#sealed });
        await Promise.all([digested, staging.writeAt(file, offset + lo, buffer.bytes.subarray(0, hi - lo))]);
        watch({ type: "advance", phase: "convert", bytes: hi - lo });
      },
    );
    const { sha256, crc32 } = await worker.call({ op: "finish" });
    await this.#held.refuse(this.#held.sealAt(from), { sha256 });
    return { sha256, crc32 };
  }

  /**
   * Starts one job, or several jobs for columns of one matrix. The worker may start the next one as soon as this returns: what it
   * digests is kept apart.
   */
  async start(jobs: readonly Job[], places: ReadonlyMap<string, Place>): Promise<StartedTensors> {
    const [job] = jobs as [Job];
    const located = (error: unknown): never => {
      throw withSource(this.#running.plan, job, error);
    };
    const { digests } = await this.#start(jobs, places).catch(located);
    const written = digests.catch(located);
    written.catch(() => {}); // marks an early failure as handled; the caller awaits it later
    return { digests: written };
  }

  async #start(jobs: readonly Job[], places: ReadonlyMap<string, Place>): Promise<StartedTensors> {
    const [job] = jobs as [Job];
    const parts = jobs.map((part) => ({ job: part, place: places.get(tensorKey(part.tensor))! }));
    if (jobs.length > 1)
      return await scatterColumns(this.#running, this.#sources, this.#worker, parts.map(scatterPart));
    const { place } = parts[0]!;
    const { cast } = job;
    if (cast === undefined) return await this.#keep(job, place);
    if (cast.blocks === undefined) return await this.#cast(job, cast, place);
    const scalePlace = places.get(cast.scaleTo!)!; // blocks have scales
    return await this.#castBlocks(job, cast.blocks, place, scalePlace);
  }

  /** Asks for the digests of started bands before the bands of the next tensor are digested. */
  #finish(
    bands: StartedBands,
    digestsOf: (finished: CallResults["finish"]) => Promise<TensorDigests>,
  ): StartedTensors {
    const finished = Promise.all([this.#worker.call({ op: "finish" }), bands.ended]);
    return { digests: finished.then(async ([result]) => [await digestsOf(result)]) };
  }

  async #keep(job: Job, place: { file: string; offset: number }): Promise<StartedTensors> {
    const { staging, watch } = this.#running;
    const worker = this.#worker;
    const width = bitsOf(job.sourceDtype) / 8;
    const seal = this.#held.sealOf(job);
    const offsetOf = ({ lo }: Band) => place.offset + lo * width;
    const bands = await startBands(
      worker,
      directBands(
        { lo: 0, hi: job.count },
        width,
        width,
        1,
        place.offset,
        worker.buffers[0]!.bytes.byteLength,
      ),
      (band, buffer) => this.#read(job, band, shiftedTo(buffer, offsetOf(band))),
      async (band, buffer) => {
        const { at, bytes: all } = shiftedTo(buffer, offsetOf(band));
        const bytes = all.subarray(0, (band.hi - band.lo) * width);
        const digested = worker.call({ op: "band", at, size: bytes.byteLength, sealed: this.#sealed });
        await Promise.all([digested, staging.writeAt(place.file, offsetOf(band), bytes)]);
        watch({ type: "advance", phase: "convert", bytes: bytes.byteLength });
      },
    );
    return this.#finish(bands, async ({ sha256, crc32 }) => {
      await this.#held.refuse(seal, { sha256, ...(this.#sealed && { crc32 }) });
      return { sha256, crc32 };
    });
  }

  async #cast(
    job: Job,
    cast: NonNullable<Job["cast"]>,
    place: { file: string; offset: number },
  ): Promise<StartedTensors> {
    const { staging, watch, allowOverflow, plan, alone } = this.#running;
    const worker = this.#worker;
    const seal = this.#held.sealOf(job);
    const ofSource = this.#sealed || (alone && seal?.sha256 !== undefined);
    const { from, to } = cast;
    const [read, written] = [widthOf(from), bitsOf(to) / 8];
    const runs = cast.sourceScales ?? [{ lo: 0, hi: job.count }];
    const scales = new Map<string, number>();
    for (const { scale: name } of cast.sourceScales ?? []) {
      if (!scales.has(name)) scales.set(name, await readScale(plan.source.tensors.get(name)!, this.#sources));
    }
    const held = isHeld(job, worker.held.bytes.byteLength) ? worker.held : null;
    if (held !== null) await worker.settle(); // the tensor before may be there, and its digests have been asked for
    const amax = isFp8(to)
      ? await sharedAmax(plan, job, this.#sources, (part) => this.#amax(part, part.cast!.from, held))
      : null;
    const scale = amax === null || !isFp8(to) ? null : scaleOf(amax, to);
    const bufferBytes = worker.buffers[0]!.bytes.byteLength;
    const block = blockElements(to);
    const bands = await startBands(
      worker,
      scaledBands(runs, block, (run) =>
        directBands(run, read + written, written, block, place.offset, bufferBytes),
      ),
      async (band, buffer) => {
        if (held === null) await this.#read(job, band, buffer);
      },
      async ({ lo, hi, scale: scaleName }, buffer) => {
        const sourceScale = scaleName === undefined ? null : scales.get(scaleName)!;
        const [count, size, toSize] = [hi - lo, (hi - lo) * read, (hi - lo) * written];
        const offset = place.offset + lo * written;
        const at = held === null ? buffer.at : held.at + lo * read;
        const free = { at: buffer.at + size, bytes: buffer.bytes.subarray(size) };
        const target = shiftedTo(free, offset);
        const call = { from, to, scale, sourceScale, toAt: target.at, toSize, count };
        const band = { op: "band", at, size, cast: call, sealed: this.#sealed, ofSource } as const;
        const ofCodes = isFp8(from) || cast.fromCodes === true;
        const { overflowAt } = await worker.call({ ...band, ofCodes }).catch((error) => {
          throw shiftIndex(error, lo);
        });
        if (overflowAt >= 0 && !allowOverflow && isFloat(to))
          throw shiftIndex(overflowError(to, overflowAt), lo);
        await staging.writeAt(place.file, offset, target.bytes.subarray(0, toSize));
        watch({ type: "advance", phase: "convert", bytes: size });
      },
    );
    return this.#finish(bands, async ({ sha256, crc32, source }) => {
      if (ofSource) await this.#held.refuse(seal, { sha256: source });
      return {
        sha256,
        crc32,
        source: {
          ...(this.#sealed && { sha256: source }),
          ...(amax !== null && scale !== null && { amax, scale }),
        },
      };
    });
  }

  async #castBlocks(job: Job, scales: BlockScales, place: Place, scalePlace: Place): Promise<StartedTensors> {
    const { alone } = this.#running;
    const seal = this.#held.sealOf(job);
    const ofSource = this.#sealed || (alone && seal?.sha256 !== undefined);
    const context = { running: this.#running, sources: this.#sources, worker: this.#worker };
    const { ended, digest } = await castBlocks(context, { job, scales, place, scalePlace, ofSource });
    return this.#finish({ ended }, async ({ sha256, crc32, source }) => {
      if (ofSource) await this.#held.refuse(seal, { sha256: source });
      const written = { sha256, crc32, scales: digest.result() };
      return { ...written, ...(this.#sealed && { source: { sha256: source } }) };
    });
  }

  /** Largest |stored value| of the whole tensor, whose elements stay in `held`; without it the cast reads them again. */
  async #amax(job: Job, dtype: FloatDType, held: BandBuffer | null): Promise<number> {
    const worker = this.#worker;
    const { watch } = this.#running;
    const width = widthOf(dtype);
    const placeOf = ({ lo }: Band, buffer: BandBuffer): BandBuffer =>
      held === null ? buffer : { at: held.at + lo * width, bytes: held.bytes.subarray(lo * width) };
    let amax = 0;
    await pipelineBands(
      worker,
      bandsOf(job.count, width, worker.buffers[0]!.bytes.byteLength),
      (band, buffer) => this.#read(job, band, placeOf(band, buffer)),
      async (band, buffer) => {
        const { lo, hi } = band;
        try {
          const { at } = placeOf(band, buffer);
          const largest = await worker.call({ op: "amax", dtype, at, count: hi - lo });
          amax = Math.max(amax, largest); // not read before the answer: two bands are in work at a time
          if (held === null) watch({ type: "advance", phase: "convert", bytes: (hi - lo) * width });
        } catch (error) {
          throw shiftIndex(error, lo);
        }
      },
    );
    return amax;
  }

  #read(job: Job, band: Band, buffer: BandBuffer): Promise<void> {
    return readBand(this.#running, this.#sources, job, band, buffer);
  }
}

/**
 * Divides each run of elements that share a scale into bands, so that all elements of a band have one scale.
 *
 * @param block elements that are stored together; a run is whole rows, and a row whole blocks
 */
function* scaledBands(
  runs: readonly (Band & { readonly scale?: string })[],
  block: number,
  bandsIn: (run: Band) => Iterable<Band>,
) {
  for (const run of runs) {
    if ((run.hi - run.lo) % block !== 0)
      throw new IsologitError("INTERNAL", "elements with one scale are not whole blocks");
    for (const band of bandsIn(run)) yield { ...run, ...band };
  }
}

function scatterPart({ job, place }: { job: Job; place: Place }): ScatterPart {
  if (job.columns === undefined) throw new IsologitError("INTERNAL", "a job without columns is scattered");
  return { job: { ...job, columns: job.columns }, place };
}
