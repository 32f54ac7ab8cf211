/**
 * Digests bands that are equal on both sides while they are in memory. A digest counts only for a tensor whose bands were equal from
 * the first to the last, in order.
 */
import type { Backend, Region } from "../../../kernels/kernel.ts";
import { type EmptyKind, SCRATCH_BYTES } from "../../cast/cast.ts";
import { type Tensor, tensorKey } from "../../core/checkpoint.ts";
import { bitsOf, countOf, type DType, isFloat } from "../../core/dtype.ts";
import { BandWorker } from "../../workers/pool.ts";

/** Memory for digests, in that of the backend. */
export const DIGEST_BYTES = SCRATCH_BYTES;

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

export class EqualDigests implements AsyncDisposable {
  readonly #backend: Backend;
  readonly #scratch: Region;
  readonly #worker: BandWorker;
  readonly #equal = new Map<string, EqualTensors>();
  #progress: Progress | null = null;
  /** all digests so far */
  #digested: Promise<unknown> = Promise.resolve();

  private constructor(backend: Backend, memory: WebAssembly.Memory, scratch: Region, at: number) {
    this.#backend = backend;
    this.#scratch = scratch;
    this.#worker = new BandWorker({ bufferBytes: 0, heldBytes: 0 }, { memory, at });
  }

  /** @param memory that of the backend */
  static async open(backend: Backend, memory: WebAssembly.Memory): Promise<EqualDigests> {
    const scratch = backend.allocate(DIGEST_BYTES);
    return new EqualDigests(backend, memory, scratch, (await backend.view(scratch, 0)).byteOffset);
  }

  /** Waits for all digests. @returns the pairs of whole tensors that were found equal */
  async finish(): Promise<EqualContent> {
    await this.#digested;
    return this.#equal;
  }

  /** Digests bands, which are given in order. @returns the end of the digest: until then their memory must stay */
  add(bands: EqualBands): Promise<void> {
    const digested = this.#digest(bands);
    this.#digested = Promise.all([this.#digested, digested]);
    this.#digested.catch(() => {}); // `finish` throws the error
    return digested;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.close();
    this.#backend.release(this.#scratch);
  }

  /** Digests a band if it is the next one of its tensor. */
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
    const finishing = isLast ? this.#worker.call({ op: "finish" }) : undefined;
    const [{ dead }, finished] = await Promise.all([digested, finishing]);
    progress.dead = progress.dead === undefined || progress.dead === dead ? dead : null;
    if (finished === undefined) return;
    const { sha256 } = finished;
    this.#equal.set(key, { dtype, elements: progress.next, sha256, dead: progress.dead });
  }
}
