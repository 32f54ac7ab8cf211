/**
 * One reading of two checkpoints for both rungs. Where both sides ask for the same products of stored tensors, each band of
 * the source that is multiplied is compared with the same rows of the destination, and digested. If all bands of a stage
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

/** Elements [from, from + count) of a tensor of each side, in the shared memory. */
interface BandPair {
  readonly tensors: readonly [source: Tensor, destination: Tensor];
  readonly from: number;
  readonly count: number;
  readonly addresses: readonly [source: number, destination: number];
}

/** Two tensors whose elements were equal from the first on. */
interface Progress {
  readonly key: string;
  /** elements that were digested */
  readonly next: number;
  /** of all bands so far; undefined before the first */
  readonly dead: EmptyKind | null | undefined;
}

export class PairedReading implements AsyncDisposable {
  readonly #backend: Backend;
  readonly #scratch: Region;
  readonly #worker: BandWorker;
  readonly #equal = new Map<string, EqualTensors>();
  #progress: Progress | null = null;
  /** the comparison of the band before */
  #last: Promise<unknown> = Promise.resolve();

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

  /** The pairs of whole tensors that were found equal so far. */
  get equal(): EqualContent {
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
      observe: async ({ tensor }, { lo, hi, stored }) => {
        const other = partners.get(tensorKey(tensor))!; // the run multiplies what `source` lists
        const before = this.#last;
        const compare = async () => {
          const found = await runner.band({ tensor: other, lo, hi });
          await before; // a digest takes the bands in order
          const columns = columnsOf(tensor.shape);
          const [from, count] = [lo * columns, (hi - lo) * columns];
          const [a, b] = [stored, found.stored].map(({ region }) => addressOf(this.#backend, region));
          const addresses = [await a!, await b!] as const;
          areEqual = (await this.#compare({ tensors: [tensor, other], from, count, addresses })) && areEqual;
          bytes += (count * bitsOf(tensor.dtype)) / 8;
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

  /** @returns whether the two bands are equal */
  async #compare({ tensors: [tensor, other], from, count, addresses: [a, b] }: BandPair): Promise<boolean> {
    const { dtype, shape } = tensor;
    const key = pairKey(tensorKey(tensor), tensorKey(other));
    if (from === 0) {
      await this.#worker.call({ op: "finish" }); // forgets a tensor that was not read to its end
      this.#progress = { key, next: 0, dead: undefined };
    }
    const before = this.#progress;
    const size = (count * bitsOf(dtype)) / 8;
    const pair = { op: "pair", a, b, count, size, toSize: size } as const;
    const probe = isFloat(dtype) && before?.dead !== null ? { probe: dtype } : {};
    const { differsAt, dead } = await this.#worker.call({ ...pair, ...probe });
    this.#progress = null;
    if (differsAt >= 0) return false;
    if (before?.key !== key || before.next !== from) return true; // not the next band: the bytes rung reads this pair
    const next = from + count;
    const deadSoFar = before.dead === undefined || before.dead === dead ? dead : null;
    if (next < countOf(shape) || next < countOf(other.shape)) this.#progress = { key, next, dead: deadSoFar };
    else {
      const { sha256 } = await this.#worker.call({ op: "finish" });
      this.#equal.set(key, { dtype, elements: next, sha256, dead: deadSoFar });
    }
    return true;
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
