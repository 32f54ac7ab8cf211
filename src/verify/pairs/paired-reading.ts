/**
 * One reading of two checkpoints for both rungs. Where both sides ask for the same products of stored tensors, each band of
 * the source that is multiplied is compared with the same rows of the destination, and digested by a worker. If all bands of a stage
 * are equal, the results of the destination are those of the source and are not computed again.
 *
 * This trusts no mapping: which rows of which tensor belong together is said by two tables of uses, one for each side. The
 * bytes rung knows the pairs of tensors by the mapping. It takes a result from here only for a pair that both name.
 */
import type { Backend, Region } from "../../../kernels/kernel.ts";
import { type EmptyKind, SCRATCH_BYTES } from "../../cast/cast.ts";
import { type Tensor, tensorKey } from "../../core/checkpoint.ts";
import { bitsOf, countOf, type DType, isFloat } from "../../core/dtype.ts";
import type { BandObserver } from "../../inference/products/multiplier.ts";
import type { DescribedProduct } from "../../inference/products/tasks.ts";
import type { ModelRunner } from "../../inference/runner.ts";
import { columnsOf } from "../../inference/weight-bands.ts";
import { BandWorker } from "../../workers/pool.ts";

/** Memory of a reading, in that of the backend. */
export const PAIRING_BYTES = SCRATCH_BYTES;

/** A tensor of the source and one of the destination that have the same bits, in every element. */
export interface EqualTensors {
  readonly dtype: DType;
  readonly elements: number;
  /** of the stored bytes in order, hex */
  readonly sha256: string;
  /** all elements are 0 or NaN */
  readonly dead: EmptyKind | null;
}

/** By `pairKey`. */
export type EqualContent = ReadonlyMap<string, EqualTensors>;

/** @param a, b `tensorKey` of a tensor of the source and of one of the destination */
export const pairKey = (a: string, b: string): string => JSON.stringify([a, b]);

/** A stage in which both sides compute the same products. */
export interface PairedStage {
  /** for the run of the source */
  readonly observe: BandObserver;
  /** after that run: whether all bands were equal */
  readonly areEqual: boolean;
  /** bytes of the destination that were compared */
  readonly bytes: number;
}

/** Elements [from, from + count) of a tensor of each side, which are equal; `address` is in the shared memory. */
interface EqualBands {
  readonly tensors: readonly [source: Tensor, destination: Tensor];
  readonly from: number;
  readonly count: number;
  readonly address: number;
}

/** Two tensors whose elements were equal from the first on. */
interface Progress {
  readonly key: string;
  /** elements that the worker digests or has digested */
  next: number;
  /** of all bands that were digested so far; undefined before the first */
  dead: EmptyKind | null | undefined;
}

export class PairedReading implements AsyncDisposable {
  readonly #backend: Backend;
  readonly #scratch: Region;
  readonly #worker: BandWorker;
  readonly #equal = new Map<string, EqualTensors>();
  #progress: Progress | null = null;
  /** the comparison of the band before */
  #last: Promise<unknown> = Promise.resolve();
  /** all digests so far */
  #digested: Promise<unknown> = Promise.resolve();

  private constructor(backend: Backend, memory: WebAssembly.Memory, scratch: Region, at: number) {
    this.#backend = backend;
    this.#scratch = scratch;
    this.#worker = new BandWorker({ bufferBytes: 0, heldBytes: 0 }, { memory, at });
  }

  /** @param memory that of the backend */
  static async open(backend: Backend, memory: WebAssembly.Memory): Promise<PairedReading> {
    const scratch = backend.allocate(PAIRING_BYTES);
    return new PairedReading(backend, memory, scratch, await addressOf(backend, scratch));
  }

  /** Waits for all digests. @returns the pairs of whole tensors that were found equal */
  async finish(): Promise<EqualContent> {
    await this.#digested;
    return this.#equal;
  }

  /**
   * @param runner runner of the destination
   * @returns undefined where the two sides do not ask for the same products
   */
  stage(
    source: readonly DescribedProduct[],
    destination: readonly DescribedProduct[],
    runner: ModelRunner,
  ): PairedStage | undefined {
    const partners = partnersOf(source, destination);
    if (partners === undefined) return undefined;
    let areEqual = true;
    let bytes = 0;
    return {
      observe: async ({ tensor }, { lo, hi, stored, keep }) => {
        const other = partners.get(tensorKey(tensor))!; // the run multiplies what `source` lists
        const before = this.#last;
        const compare = async () => {
          const found = await runner.band({ tensor: other, lo, hi });
          await before; // a digest takes the bands in order
          const columns = columnsOf(tensor.shape);
          const [from, count] = [lo * columns, (hi - lo) * columns];
          const size = (count * bitsOf(tensor.dtype)) / 8;
          bytes += size;
          const a = await bytesIn(this.#backend, stored.region, size);
          if (!a.equals(await bytesIn(this.#backend, found.stored.region, size))) {
            areEqual = false;
            return;
          }
          const digested = this.#digest({ tensors: [tensor, other], from, count, address: a.byteOffset });
          keep(digested);
          this.#digested = Promise.all([this.#digested, digested]);
          this.#digested.catch(() => {}); // `finish` throws the error
        };
        const compared = compare();
        this.#last = compared.catch(() => {}); // the run of the stage gets the error
        await compared;
      },
      get areEqual() {
        return areEqual;
      },
      get bytes() {
        return bytes;
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.close();
    this.#backend.release(this.#scratch);
  }

  /** Digests a band that is equal on both sides if it is the next one of its tensor. @returns the end of the digest */
  async #digest({ tensors: [tensor, other], from, count, address }: EqualBands): Promise<void> {
    const { dtype, shape } = tensor;
    const key = pairKey(tensorKey(tensor), tensorKey(other));
    if (from === 0) {
      // forgets a tensor that was not read to its end; after an error the next call fails too
      this.#worker.call({ op: "finish" }).catch(() => {});
      this.#progress = { key, next: 0, dead: undefined };
    }
    const progress = this.#progress;
    if (progress?.key !== key || progress.next !== from) return; // the bytes rung reads this pair
    progress.next += count;
    const size = (count * bitsOf(dtype)) / 8;
    const probe = isFloat(dtype) && progress.dead !== null ? { probe: { dtype, count } } : {};
    const digested = this.#worker.call({ op: "band", at: address, size, sealed: false, ...probe });
    const isLast = progress.next === countOf(shape) && progress.next === countOf(other.shape);
    const finished = isLast ? this.#worker.call({ op: "finish" }) : undefined;
    const { dead } = await digested;
    progress.dead = progress.dead === undefined || progress.dead === dead ? dead : null;
    if (finished === undefined) return;
    const { sha256 } = await finished;
    this.#equal.set(key, { dtype, elements: progress.next, sha256, dead: progress.dead });
  }
}

/** For each tensor that the source multiplies, by key, that of the destination; undefined where the products differ. */
function partnersOf(
  source: readonly DescribedProduct[],
  destination: readonly DescribedProduct[],
): ReadonlyMap<string, Tensor> | undefined {
  const partners = new Map<string, Tensor>();
  for (const [i, { tensor, description }] of source.entries()) {
    const other = destination[i];
    const known = partners.get(tensorKey(tensor));
    if (other?.description !== description || (known ?? other.tensor) !== other.tensor) return undefined;
    partners.set(tensorKey(tensor), other.tensor);
  }
  return source.length > 0 && source.length === destination.length ? partners : undefined;
}

async function addressOf(backend: Backend, region: Region): Promise<number> {
  return (await backend.view(region, 0)).byteOffset;
}

async function bytesIn(backend: Backend, region: Region, size: number): Promise<Buffer> {
  const { buffer, byteOffset } = await backend.view(region, 0);
  return Buffer.from(buffer, byteOffset, size);
}
