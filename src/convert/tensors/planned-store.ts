/**
 * The destination of a plan as a checkpoint that can be read before it is written: the elements of each tensor are cast when
 * they are read, by the code that casts them in a conversion. The memory is that of a read range, or of one row of blocks.
 */
import { createSharedMemory, FIRST_ADDRESS } from "../../../kernels/module.ts";
import { type BlockCaster, type BlockScales, createBlockCaster } from "../../cast/blocks.ts";
import { type Caster, createCaster, overflowError, SCRATCH_BYTES, scaleOf } from "../../cast/cast.ts";
import { type BlockEncoder, createBlockEncoder } from "../../cast/encode-blocks.ts";
import type { Fp8 } from "../../cast/table.ts";
import { readScale } from "../../checkpoint/scales/values.ts";
import { type Checkpoint, type Tensor, tensorKey } from "../../core/checkpoint.ts";
import { bitsOf, blockElements, bytesOf, isBlockTarget, isFp8, widthOf } from "../../core/dtype.ts";
import { IsologitError } from "../../core/errors.ts";
import { type Band, bandsOf } from "../../core/gather.ts";
import type { ByteSource, Store } from "../../core/io.ts";
import { Sources } from "../../core/read.ts";
import { plannedCheckpoint } from "../plan-summary.ts";
import type { ConversionRun, Job, ScaledRun } from "../types.ts";
import { readBand, shiftIndex, withSource } from "./read-band.ts";
import { sharedAmax } from "./shared-amax.ts";

/** Elements that are cast at a time. */
const PART_ELEMENTS = 1 << 20;

/** Begins the names of planned files; no path of a store begins with it. */
const PREFIX = "/planned:";

/**
 * The planned destination, with a file for each tensor. A read throws the errors of the conversion.
 *
 * @param run the plan, and the options that the casts depend on
 */
export async function readablePlan(
  run: Pick<ConversionRun, "plan" | "signal" | "allowOverflow">,
): Promise<{ readonly checkpoint: Checkpoint } & AsyncDisposable> {
  const { plan } = run;
  const planned = plannedCheckpoint(plan);
  const memory = createSharedMemory(SCRATCH_BYTES);
  const caster = await createCaster(memory, FIRST_ADDRESS);
  const sources = new Sources(plan.source.checkpoint.store);
  const blocks = await createBlockCaster(memory, FIRST_ADDRESS);
  const encoder = await createBlockEncoder(memory, FIRST_ADDRESS, caster);
  const work = new PlannedWork(run, sources, memory, caster, blocks, encoder);
  const jobs = new Map(plan.jobs.map((job) => [tensorKey(job.tensor), job]));
  const scales = new Map(plan.jobs.flatMap((job) => (job.cast?.scaleTo ? [[job.cast.scaleTo, job]] : [])));
  const tensors = new Map(planned.tensors.map((tensor) => [tensorKey(tensor), tensor]));
  const read = async (key: string, target: Uint8Array, offset: number): Promise<void> => {
    const [job, owner, known] = [jobs.get(key), scales.get(key), plan.known.get(key)];
    if (known !== undefined) return target.set(known.subarray(offset, offset + target.byteLength));
    const source = owner ?? job;
    if (source === undefined) throw new IsologitError("INTERNAL", "nothing writes it", { tensor: key });
    try {
      if (owner === undefined) await work.readTensor(source, target, offset);
      else await work.readScales(owner, target, offset);
    } catch (error) {
      throw withSource(plan, source, error);
    }
  };
  const open = async (path: string): Promise<ByteSource> => {
    const key = path.slice(PREFIX.length);
    const tensor = path.startsWith(PREFIX) ? tensors.get(key) : undefined;
    if (tensor === undefined) return await planned.store.open(path);
    const size = bytesOf(tensor.dtype, tensor.shape);
    const readInto = (target: Uint8Array, offset: number) => read(key, target, offset);
    return { url: planned.store.url, size, readInto, [Symbol.asyncDispose]: async () => {} };
  };
  const wholePiece = ({ shape, ...tensor }: Tensor): Tensor => {
    const file = PREFIX + tensorKey(tensor);
    return { ...tensor, shape, pieces: [{ file, offset: 0, start: shape.map(() => 0), shape }] };
  };
  const store: Store = { ...planned.store, open };
  const checkpoint = { ...planned, tensors: planned.tensors.map(wholePiece), store };
  return { checkpoint, [Symbol.asyncDispose]: () => sources[Symbol.asyncDispose]() };
}

/** Rows of blocks of a weight, and their scales as they are stored. */
interface RowScales {
  readonly lo: number;
  readonly hi: number;
  readonly bytes: Promise<Uint8Array>;
}

/** Reads and casts elements in one memory, which no other work uses between the copy into it and the copy out of it. */
class PlannedWork {
  readonly #run: Pick<ConversionRun, "plan" | "signal" | "allowOverflow">;
  readonly #sources: Sources;
  readonly #memory: WebAssembly.Memory;
  readonly #caster: Caster;
  readonly #blocks: BlockCaster;
  readonly #encoder: BlockEncoder;
  readonly #tensorScales = new Map<Job, Promise<number>>();
  /** of each weight the scales that were read last: its codes and its scales are read in turn */
  readonly #rowScales = new Map<Job, RowScales>();

  constructor(
    run: Pick<ConversionRun, "plan" | "signal" | "allowOverflow">,
    sources: Sources,
    memory: WebAssembly.Memory,
    caster: Caster,
    blocks: BlockCaster,
    encoder: BlockEncoder,
  ) {
    this.#run = run;
    this.#sources = sources;
    this.#memory = memory;
    this.#caster = caster;
    this.#blocks = blocks;
    this.#encoder = encoder;
  }

  /** Fills `target` with stored bytes of a job's tensor, from byte `offset` on. */
  async readTensor(job: Job, target: Uint8Array, offset: number): Promise<void> {
    const { cast, sourceDtype } = job;
    if (cast === undefined) {
      const perByte = 8 / bitsOf(sourceDtype);
      const band = { lo: offset * perByte, hi: (offset + target.byteLength) * perByte };
      await readBand(this.#run, this.#sources, job, band, { bytes: target });
    } else if (cast.blocks === undefined) await this.#castRange(job, cast, target, offset);
    else await this.#readCodes(job, cast.blocks, target, offset);
  }

  /** Fills `target` with stored scales of a job's weight, from byte `offset` on. */
  async readScales(job: Job, target: Uint8Array, offset: number): Promise<void> {
    const { blocks } = job.cast!; // only casts have new scales
    if (blocks === undefined) {
      const bytes = new Uint8Array(Float32Array.of(await this.#tensorScale(job)).buffer);
      target.set(bytes.subarray(offset, offset + target.byteLength));
      return;
    }
    const rowBytes = Math.ceil(blocks.columns / blocks.block[1]) * (blocks.isExponent ? 1 : 4);
    const [lo, hi] = [Math.floor(offset / rowBytes), Math.ceil((offset + target.byteLength) / rowBytes)];
    const last = this.#rowScales.get(job);
    const isHeld = last !== undefined && last.lo <= lo && hi <= last.hi;
    const scales = isHeld ? last : { lo, hi, bytes: this.#computeScales(job, blocks, lo, hi) };
    this.#rowScales.set(job, scales);
    const start = offset - scales.lo * rowBytes;
    target.set((await scales.bytes).subarray(start, start + target.byteLength));
  }

  /** The blocks that a range begins or ends in are cast as a whole. */
  async #castRange(
    job: Job,
    cast: NonNullable<Job["cast"]>,
    target: Uint8Array,
    offset: number,
  ): Promise<void> {
    const unit = blockElements(cast.to);
    const unitBytes = (unit * bitsOf(cast.to)) / 8;
    const [lo, hi] = [Math.floor(offset / unitBytes), Math.ceil((offset + target.byteLength) / unitBytes)];
    const size = (hi - lo) * unitBytes;
    if (size === target.byteLength) return await this.#cast(job, cast, target, lo * unit);
    const blocks = new Uint8Array(size);
    await this.#cast(job, cast, blocks, lo * unit);
    const start = offset - lo * unitBytes;
    target.set(blocks.subarray(start, start + target.byteLength));
  }

  async #cast(job: Job, cast: NonNullable<Job["cast"]>, target: Uint8Array, first: number): Promise<void> {
    const { from, to } = cast;
    const { plan, allowOverflow } = this.#run;
    const [read, written] = [widthOf(from), bitsOf(to) / 8];
    const scale = isFp8(to) ? await this.#tensorScale(job) : null;
    const end = first + target.byteLength / written;
    const runs: readonly Partial<ScaledRun>[] = cast.sourceScales ?? [{}];
    for (const { lo: start = 0, hi: stop = job.count, scale: name } of runs) {
      const sourceScale =
        name === undefined ? null : await readScale(plan.source.tensors.get(name)!, this.#sources);
      for (let lo = Math.max(first, start); lo < Math.min(end, stop); lo += PART_ELEMENTS) {
        const hi = Math.min(end, stop, lo + PART_ELEMENTS);
        const count = hi - lo;
        const elements = await this.#read(job, { lo, hi });
        const at = this.#place(elements, count * written);
        const toAt = at + count * read;
        const nan = isFp8(from) || cast.fromCodes === true ? this.#caster.firstNaN(from, at, count) : -1;
        if (nan >= 0)
          throw new IsologitError("NON_FINITE", "a code of the weight is NaN", { index: lo + nan });
        try {
          if (isBlockTarget(to)) this.#encoder.encode(from, to, sourceScale, at, toAt, count);
          else {
            const { overflowAt } = this.#caster.cast(from, to, scale, sourceScale, at, toAt, count);
            if (overflowAt >= 0 && !allowOverflow) throw overflowError(to, overflowAt);
          }
        } catch (error) {
          throw shiftIndex(error, lo);
        }
        target.set(this.#view(toAt, count * written), (lo - first) * written);
      }
    }
  }

  #tensorScale(job: Job): Promise<number> {
    const known = this.#tensorScales.get(job);
    if (known !== undefined) return known;
    const amax = sharedAmax(this.#run.plan, job, this.#sources, (part) => this.#amax(part));
    const scale = amax.then((value) => scaleOf(value, job.cast!.to as Fp8)); // only FP8 has a scale
    this.#tensorScales.set(job, scale);
    return scale;
  }

  async #amax(job: Job): Promise<number> {
    const { from } = job.cast!; // weights that share a scale are cast
    let amax = 0;
    for (const { lo, hi } of bandsOf(job.count, 1, PART_ELEMENTS)) {
      const elements = await this.#read(job, { lo, hi });
      const at = this.#place(elements, 0);
      try {
        amax = Math.max(amax, this.#caster.amax(from, at, hi - lo));
      } catch (error) {
        throw shiftIndex(error, lo);
      }
    }
    return amax;
  }

  async #readCodes(job: Job, scales: BlockScales, target: Uint8Array, offset: number): Promise<void> {
    const end = offset + target.byteLength;
    const rowElements = scales.columns * scales.block[0];
    const [lo, hi] = [Math.floor(offset / rowElements), Math.ceil(end / rowElements)];
    for await (const { at, codes } of this.#castRows(job, scales, lo, hi)) {
      const [from, to] = [Math.max(offset, at), Math.min(end, at + codes.byteLength)];
      target.set(codes.subarray(from - at, to - at), from - offset);
    }
  }

  async #computeScales(job: Job, scales: BlockScales, lo: number, hi: number): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    for await (const { stored } of this.#castRows(job, scales, lo, hi)) parts.push(stored);
    return Buffer.concat(parts); // scales of the rows of one band
  }

  /** Codes and scales of rows of blocks [lo, hi), some rows at a time; `at` is the index of the first element. */
  async *#castRows(job: Job, scales: BlockScales, lo: number, hi: number) {
    const { columns, block, from } = scales;
    const rows = job.count / columns;
    const step = Math.max(1, Math.floor(PART_ELEMENTS / columns / block[0])) * block[0];
    const end = Math.min(rows, hi * block[0]);
    for (let top = lo * block[0]; top < end; top += step) {
      const count = Math.min(step, end - top) * columns;
      const band = { lo: top * columns, hi: top * columns + count };
      const size = count * widthOf(from);
      const elements = await this.#read(job, band);
      const at = this.#place(elements, 5 * count); // codes, and at most one F32 scale for each
      const toAt = at + size;
      this.#caster.forget();
      try {
        const bytes = this.#blocks.castRows(scales, at, count / columns, toAt, toAt + count);
        yield {
          at: band.lo,
          codes: this.#view(toAt, count).slice(),
          stored: this.#view(toAt + count, bytes).slice(),
        };
      } catch (error) {
        throw shiftIndex(error, band.lo);
      }
    }
  }

  async #read(job: Job, band: Band): Promise<Uint8Array> {
    const bytes = new Uint8Array(((band.hi - band.lo) * bitsOf(job.sourceDtype)) / 8);
    await readBand(this.#run, this.#sources, job, band, { bytes });
    return bytes;
  }

  /**
   * Copies elements into the memory. The caller must take its results out before it waits for anything.
   *
   * @returns their address; `more` bytes behind them are free to use
   */
  #place(elements: Uint8Array, more: number): number {
    const at = FIRST_ADDRESS + SCRATCH_BYTES;
    const missing = at + elements.byteLength + more - this.#memory.buffer.byteLength;
    if (missing > 0) this.#memory.grow(Math.ceil(missing / 65536));
    this.#view(at, elements.byteLength).set(elements);
    return at;
  }

  #view(at: number, size: number): Uint8Array {
    return new Uint8Array(this.#memory.buffer, at, size);
  }
}
