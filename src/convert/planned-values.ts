/**
 * The weights that a plan casts, as tensors of the values that it would store: a store computes them when they are read, and
 * nothing is written. The memory is that of the read range, extended to whole rows of blocks.
 */
import { createSharedMemory, FIRST_ADDRESS } from "../../kernels/module.ts";
import { type BlockCaster, type BlockScales, createBlockCaster } from "../cast/blocks.ts";
import { type Caster, createCaster, SCRATCH_BYTES, scaleOf } from "../cast/cast.ts";
import { type LoadedModel, matchModel } from "../checkpoint/load.ts";
import type { RunOptions } from "../checkpoint/options.ts";
import { type Tensor, tensorKey } from "../core/checkpoint.ts";
import { bytesOf, isFp8, widthOf } from "../core/dtype.ts";
import { withLocation } from "../core/errors.ts";
import { tableOf, widen } from "../core/float.ts";
import { bandsOf, gatherExtents } from "../core/gather.ts";
import type { ByteSource } from "../core/io.ts";
import type { Sources } from "../core/read.ts";
import { plannedCheckpoint } from "./plan-summary.ts";
import { shiftIndex, sourceTensor } from "./tensors/read-band.ts";
import type { Job, Plan } from "./types.ts";

type Cast = NonNullable<Job["cast"]>;

/** Begins the names of files of computed values; no path of a store begins with it. */
const PREFIX = "/planned:";

/** Elements that are cast at a time, unless a row of blocks has more. */
const PART_ELEMENTS = 1 << 20;

/**
 * The destination of a plan, matched to its family; weights that are cast are F32 tensors of their stored values.
 *
 * @param sources files of the plan's source
 */
export async function withPlannedValues(
  plan: Plan,
  sources: Sources,
  options: Pick<RunOptions, "families">,
): Promise<LoadedModel> {
  const model = matchModel(plannedCheckpoint(plan), options);
  const casts = new Map(
    plan.jobs.flatMap((job) => (job.cast ? [[tensorKey(job.tensor), job] as const] : [])),
  );
  const tensors = new Map(
    [...model.tensors].map(([key, tensor]) => [key, casts.has(key) ? valuesOf(key, tensor) : tensor]),
  );
  const { store } = plan.source.checkpoint;
  const values = await PlannedValues.create(plan, sources);
  const open = async (path: string): Promise<ByteSource> => {
    const job = path.startsWith(PREFIX) ? casts.get(path.slice(PREFIX.length)) : undefined;
    return job === undefined ? await store.open(path) : sourceOf(values, job, store.url);
  };
  return { ...model, tensors, checkpoint: { ...model.checkpoint, store: { ...store, open } } };
}

function valuesOf(key: string, { name, shape, rank }: Tensor): Tensor {
  const start = shape.map(() => 0);
  const pieces = [{ file: PREFIX + key, offset: 0, start, shape }];
  return { name, dtype: "F32", shape, ...(rank && { rank }), pieces };
}

function sourceOf(values: PlannedValues, job: Job, url: string): ByteSource {
  return {
    url,
    size: bytesOf("F32", job.tensor.shape),
    async readInto(target, offset, signal) {
      const [lo, count] = [offset / 4, target.byteLength / 4];
      target.set(new Uint8Array((await values.read(job, lo, lo + count, signal)).buffer));
    },
    async [Symbol.asyncDispose]() {},
  };
}

/** Casts ranges of the tensors of one plan. */
class PlannedValues {
  readonly #plan: Plan;
  readonly #sources: Sources;
  readonly #memory: WebAssembly.Memory;
  readonly #caster: Caster;
  readonly #blocks: BlockCaster;
  /** by `tensorKey`: one scale a tensor */
  readonly #scales = new Map<string, Promise<number>>();

  static async create(plan: Plan, sources: Sources): Promise<PlannedValues> {
    const memory = createSharedMemory(2 * SCRATCH_BYTES);
    const caster = await createCaster(memory, FIRST_ADDRESS);
    const blocks = await createBlockCaster(memory, FIRST_ADDRESS + SCRATCH_BYTES);
    return new PlannedValues(plan, sources, memory, caster, blocks);
  }

  private constructor(
    plan: Plan,
    sources: Sources,
    memory: WebAssembly.Memory,
    caster: Caster,
    blocks: BlockCaster,
  ) {
    this.#plan = plan;
    this.#sources = sources;
    this.#memory = memory;
    this.#caster = caster;
    this.#blocks = blocks;
  }

  /** The values of elements [lo, hi). @throws NON_FINITE with the tensor and the index */
  async read(job: Job, lo: number, hi: number, signal: AbortSignal | undefined): Promise<Float32Array> {
    const cast = job.cast!;
    const unit = cast.blocks === undefined ? 1 : cast.blocks.block[0] * cast.blocks.columns;
    const step = Math.max(1, Math.floor(PART_ELEMENTS / unit)) * unit;
    const scale = cast.blocks === undefined && isFp8(cast.to) ? await this.#scaleOf(job, signal) : null;
    const values = new Float32Array(hi - lo);
    for (let from = lo - (lo % unit); from < hi; from += step) {
      const to = Math.min(job.count, from + step);
      const elements = await this.#elements(job, from, to, signal);
      const part = withTensor(job, from, () =>
        cast.blocks === undefined
          ? this.#castOne(cast, scale, elements)
          : this.#castBlocks(cast.blocks, elements),
      );
      const [first, end] = [Math.max(lo, from), Math.min(hi, to)];
      values.set(part.subarray(first - from, end - from), first - lo);
    }
    return values;
  }

  /** Elements [lo, hi) in the dtype of the source. */
  async #elements(job: Job, lo: number, hi: number, signal: AbortSignal | undefined): Promise<Uint8Array> {
    const width = widthOf(job.cast!.from);
    const bytes = new Uint8Array((hi - lo) * width);
    const extents = gatherExtents(job.elementSource, { lo, hi }, this.#plan.source.tensors, width);
    await this.#sources.read(extents, bytes, signal);
    return bytes;
  }

  #scaleOf(job: Job, signal: AbortSignal | undefined): Promise<number> {
    const key = tensorKey(job.tensor);
    const known = this.#scales.get(key) ?? this.#measureScale(job, signal);
    this.#scales.set(key, known);
    return known;
  }

  /** The scale of a tensor, and of those that share it. */
  async #measureScale(job: Job, signal: AbortSignal | undefined): Promise<number> {
    const { from, to, sharedWith = [] } = job.cast!;
    const others = this.#plan.jobs.filter(({ tensor }) => sharedWith.includes(tensorKey(tensor)));
    let amax = 0;
    for (const part of [job, ...others]) {
      for (const { lo, hi } of bandsOf(part.count, 1, PART_ELEMENTS)) {
        const elements = await this.#elements(part, lo, hi, signal);
        const { at } = this.#place(elements, 0);
        amax = Math.max(
          amax,
          withTensor(part, lo, () => this.#caster.amax(from, at, hi - lo)),
        );
      }
    }
    return isFp8(to) ? scaleOf(amax, to) : 1;
  }

  #castOne({ from, to }: Cast, scale: number | null, elements: Uint8Array): Float32Array {
    const count = elements.byteLength / widthOf(from);
    const { at, free } = this.#place(elements, count * widthOf(to));
    this.#caster.cast(from, to, scale, null, at, free, count);
    const values = widen(to, new Uint8Array(this.#memory.buffer, free, count * widthOf(to)));
    if (scale !== null) for (let i = 0; i < count; i++) values[i] = values[i]! * scale;
    return values;
  }

  /** Whole rows of blocks. */
  #castBlocks(scales: BlockScales, elements: Uint8Array): Float32Array {
    const { columns, block } = scales;
    const width = widthOf(scales.from);
    const rows = elements.byteLength / width / columns;
    const { at, free } = this.#place(elements, rows * columns + 4 * columns);
    const values = new Float32Array(rows * columns);
    this.#caster.forget();
    for (let top = 0; top < rows; top += block[0]) {
      const height = Math.min(block[0], rows - top);
      const from = at + top * columns * width;
      this.#blocks.begin(scales);
      this.#blocks.observe(scales, from, height, top * columns);
      const codesAt = free + 4 * columns; // at most one scale of four bytes for each column
      const scaleBytes = this.#blocks.writeScales(scales, free);
      this.#blocks.writeCodes(scales, from, codesAt, height);
      const codes = new Uint8Array(this.#memory.buffer, codesAt, height * columns);
      const factors = blockFactors(scales, new Uint8Array(this.#memory.buffer, free, scaleBytes).slice());
      for (let row = 0; row < height; row++) {
        for (const [i, factor] of factors.entries()) {
          const [first, end] = [
            row * columns + i * block[1],
            row * columns + Math.min(columns, (i + 1) * block[1]),
          ];
          for (let k = first; k < end; k++) values[top * columns + k] = E4M3[codes[k]!]! * factor;
        }
      }
    }
    return values;
  }

  /** Puts elements into the memory. @returns their address, and that of `more` free bytes behind them */
  #place(elements: Uint8Array, more: number): { readonly at: number; readonly free: number } {
    const at = FIRST_ADDRESS + 2 * SCRATCH_BYTES;
    const free = Math.ceil((at + elements.byteLength) / 8) * 8;
    const lacking = free + more - this.#memory.buffer.byteLength;
    if (lacking > 0) this.#memory.grow(Math.ceil(lacking / 65536));
    new Uint8Array(this.#memory.buffer, at, elements.byteLength).set(elements);
    return { at, free };
  }
}

const E4M3 = tableOf("F8_E4M3");

function blockFactors({ isExponent }: BlockScales, stored: Uint8Array): Float32Array {
  return isExponent
    ? Float32Array.from(stored, (exponent) => 2 ** (exponent - 127))
    : new Float32Array(stored.buffer);
}

/** Runs `work` on elements from `lo` on; an error about one of them names the tensor and its index there. */
function withTensor<T>(job: Job, lo: number, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw withLocation(shiftIndex(error, lo), { tensor: sourceTensor(job) ?? job.tensor.name });
  }
}
