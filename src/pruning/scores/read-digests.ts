/** What the passes learn about the checkpoint beside its scores: how many bytes were read, and digests of what was read. */
import { createHash, type Hash } from "node:crypto";
import type { Tensor } from "../../core/checkpoint.ts";
import { tensorKey } from "../../core/checkpoint.ts";
import { widthOf } from "../../core/dtype.ts";
import type { Store } from "../../core/io.ts";

/** The SHA-256 of stored tensors whose elements a pass reads in order; so that the content root needs no second reading. */
export class ReadDigests {
  readonly #wanted: ReadonlyMap<string, number>;
  readonly #stored: ReadonlyMap<string, Tensor>;
  readonly #begun = new Map<string, { readonly hash: Hash; next: number }>();
  readonly #done = new Map<string, string>();

  /**
   * @param wanted by `tensorKey`: number of elements from the first on
   * @param stored by `tensorKey`: the tensors as they are stored
   */
  constructor(wanted: ReadonlyMap<string, number>, stored: ReadonlyMap<string, Tensor>) {
    this.#wanted = wanted;
    this.#stored = stored;
  }

  /**
   * Takes elements [lo, hi) of a tensor. Elements out of order are left out, and the tensor then has no digest; values that were
   * decoded from codes with a scale for each row are not what is stored, and have none either.
   */
  add(tensor: Tensor, lo: number, hi: number, bytes: Uint8Array): void {
    const key = tensorKey(tensor);
    const count = this.#wanted.get(key);
    if (count === undefined || this.#done.has(key) || this.#stored.get(key)?.dtype !== tensor.dtype) return;
    if (lo === 0) this.#begun.set(key, { hash: createHash("sha256"), next: 0 });
    const begun = this.#begun.get(key);
    if (begun?.next !== lo) return;
    begun.hash.update(bytes.subarray(0, (Math.min(hi, count) - lo) * widthOf(tensor.dtype)));
    begun.next = hi;
    if (hi < count) return;
    this.#done.set(key, begun.hash.digest("hex"));
    this.#begun.delete(key);
  }

  get(tensor: string): string | undefined {
    return this.#done.get(tensor);
  }
}

/** The same store; `count` receives the size of each read. */
export function countingStore(store: Store, count: (bytes: number) => void): Store {
  return {
    ...store,
    open: async (path) => {
      const source = await store.open(path);
      return {
        ...{ url: source.url, size: source.size },
        readInto: async (target, offset, signal) => {
          await source.readInto(target, offset, signal);
          count(target.byteLength);
        },
        [Symbol.asyncDispose]: () => source[Symbol.asyncDispose](),
      };
    },
  };
}
