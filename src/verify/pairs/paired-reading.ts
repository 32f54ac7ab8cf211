/**
 * Products that both checkpoints share are computed once. Where both sides ask for the same products of stored tensors, each band of
 * the source that is multiplied, rounded as the destination stores it, is compared with the same rows of the destination. If all bands
 * of a stage are equal, the results of the destination are those of the source and are not computed again.
 *
 * This trusts no mapping: which rows of which tensor belong together is said by two tables of uses, one for each side. The
 * bytes rung knows the pairs of tensors by the mapping. It takes a digest from here only for a pair that both name.
 */
import type { Backend, Region } from "../../../kernels/kernel.ts";
import { type Tensor, tensorKey } from "../../core/checkpoint.ts";
import { widthOf } from "../../core/dtype.ts";
import type { BandObserver } from "../../inference/products/multiplier.ts";
import type { DescribedProduct, MatmulTask } from "../../inference/products/tasks.ts";
import type { ModelRunner } from "../../inference/runner.ts";
import { columnsOf, type VersionData } from "../../inference/weight-bands.ts";
import type { EqualDigests } from "./equal-digests.ts";

/** A stage in which both sides compute the same products. */
export interface PairedStage {
  /** for the run of the source */
  readonly observe: BandObserver;
  /** after that run: whether all bands were equal */
  readonly areEqual: boolean;
  /** bytes of the destination that were compared */
  readonly bytes: number;
}

/** Which products need both sides once only. */
export class PairedReading {
  readonly #backend: Backend;
  readonly #digests: EqualDigests | undefined;
  /** the comparison of the band before */
  #last: Promise<unknown> = Promise.resolve();

  /**
   * @param backend a backend with memory that the process sees
   * @param digests receives the bands that are equal; only where nothing is recast
   */
  constructor(backend: Backend, digests?: EqualDigests) {
    this.#backend = backend;
    this.#digests = digests;
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
    const digests = this.#digests;
    let areEqual = true;
    let bytes = 0;
    return {
      observe: async (task, band) => {
        if (!areEqual && digests === undefined) return;
        const { tensor } = task;
        const other = partners.get(tensorKey(tensor))!; // the run multiplies what `source` lists
        const { lo, hi } = band;
        const before = this.#last;
        const compare = async () => {
          const { stored } = await runner.band({ tensor: other, lo, hi });
          await before; // a digest takes the bands in order
          const columns = columnsOf(tensor.shape);
          const [from, count] = [lo * columns, (hi - lo) * columns];
          bytes += count * widthOf(other.dtype);
          const address = await this.#equalAt(band.version("recast"), stored, task, count);
          if (address === null) areEqual = false;
          else if (digests !== undefined)
            band.keep(digests.add({ tensors: [tensor, other], from, count, address }));
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

  /** Address of the first of two bands that a product takes for the same numbers; null if it does not. */
  async #equalAt(
    one: VersionData,
    other: VersionData,
    { outputs }: MatmulTask,
    count: number,
  ): Promise<number | null> {
    if (one.dtype !== other.dtype || one.scale !== other.scale) return null;
    const areFunctions = outputs.some(({ times = 1 }) => times !== 1);
    if (areFunctions && one.areValues !== other.areValues) return null;
    const size = count * widthOf(one.dtype);
    const bytes = await bytesIn(this.#backend, one.region, size);
    return bytes.equals(await bytesIn(this.#backend, other.region, size)) ? bytes.byteOffset : null;
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
    if (widthOf(other.tensor.dtype) > widthOf(tensor.dtype)) return undefined; // its rows need not fit into a band
    partners.set(tensorKey(tensor), other.tensor);
  }
  return source.length > 0 && source.length === destination.length ? partners : undefined;
}

async function bytesIn(backend: Backend, region: Region, size: number): Promise<Buffer> {
  const { buffer, byteOffset } = await backend.view(region, 0);
  return Buffer.from(buffer, byteOffset, size);
}
