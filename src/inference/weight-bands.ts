/**
 * Stored weights as a run wants them: rows in bands, as stored or as the other side's recast rounds them. A band is
 * read once, whatever wants it, and goes.
 */
import type { Backend, Region } from "../../kernels/kernel.ts";
import { type Tensor, tensorKey } from "../core/checkpoint.ts";
import { type FloatDType, isFloat, type Shape, widthOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { widen } from "../core/float.ts";
import { extentsOf, type Sources } from "../core/read.ts";
import type { Rounding, RowRounding } from "./rounding.ts";

/** The first band's part of a whole one; each further band is twice the one before, up to a whole one. */
const FIRST_BAND = 1 / 8;

/** "stored", or "recast" as the other side's recast rounds them */
export type WeightVersion = "stored" | "recast";

/** What rounds weights as the other side's recast does. */
export interface WeightRounder {
  /** Fills `target` with the rounded elements of `stored`. */
  round(stored: Uint8Array, from: FloatDType, scale: number, to: Rounding, target: Uint8Array): void;
}

export interface WeightsOptions {
  readonly backend: Backend;
  /** by `tensorKey`, as are the scales and roundings */
  readonly tensors: ReadonlyMap<string, Tensor>;
  readonly sources: Sources;
  /** the scale of an FP8 tensor; 1 where there is none */
  readonly scaleOf: ReadonlyMap<string, number>;
  /** how the other side stores what rows of a tensor hold, in their order; absent where it is the same */
  readonly roundings: ReadonlyMap<string, readonly RowRounding[]>;
  readonly rounder: WeightRounder;
  /** bytes of weights read at a time */
  readonly bandBytes: number;
  readonly advance: (bytes: number) => void;
  readonly signal: AbortSignal | undefined;
}

/** Rows [lo, hi) of a stored matrix. */
export interface MatrixRows {
  readonly tensor: Tensor;
  readonly lo: number;
  readonly hi: number;
}

/** Some of those rows, in each form. */
export interface BandData {
  readonly lo: number;
  readonly hi: number;
  readonly forms: Readonly<Record<WeightVersion, Formed>>;
}

interface Formed {
  readonly region: Region;
  readonly dtype: FloatDType;
  readonly scale: number;
}

export class Weights {
  readonly #o: WeightsOptions;
  /** two, so that one is read while the other is used */
  readonly #bands: readonly { readonly stored: Region; readonly recast: Region }[];

  constructor(options: WeightsOptions) {
    this.#o = options;
    const { backend, tensors, roundings, bandBytes } = options;
    const widest = Math.max(...[...tensors.values()].map(rowBytes));
    const bytes = Math.max(bandBytes, widest);
    const growth = [...roundings].flatMap(([key, rows]) =>
      rows.map(({ rounding }) => widthOf(rounding.to) / widthOf(tensors.get(key)!.dtype)),
    );
    this.#bands = [0, 1].map(() => ({
      stored: backend.allocate(bytes),
      recast: backend.allocate(bytes * Math.max(0, ...growth)),
    }));
  }

  /**
   * All the rows, a band at a time: `use` of a band is called while the one before is still used, so that its work is
   * waiting when that ends, and the next is read meanwhile.
   *
   * @param progress whether this reading is one of those that a run was said to take
   */
  async eachBand<R extends MatrixRows>(
    wanted: readonly R[],
    progress: boolean,
    use: (rows: R, band: BandData) => Promise<void>,
  ): Promise<void> {
    const cuts = this.#cuts(wanted);
    const fill = (i: number) => awaited(this.#fill(cuts[i]!.rows.tensor, cuts[i]!.lo, cuts[i]!.hi, i));
    let filled = cuts.length === 0 ? undefined : fill(0);
    const uses: Promise<void>[] = [];
    try {
      for (const [i, { rows, lo, hi }] of cuts.entries()) {
        uses.push(awaited(use(rows, await filled!)));
        await uses[i - 1];
        if (i + 1 < cuts.length) filled = fill(i + 1);
        if (progress) this.#o.advance((hi - lo) * rowBytes(rows.tensor));
      }
      await uses.at(-1);
    } finally {
      await Promise.allSettled([...uses, filled]); // nobody computes on a band, or fills it, when it is let go
    }
  }

  /** The rows of each band, which has one rounding. The first are short: until the first is read, nothing is computed. */
  #cuts<R extends MatrixRows>(wanted: readonly R[]): readonly { rows: R; lo: number; hi: number }[] {
    const cuts: { rows: R; lo: number; hi: number }[] = [];
    for (const rows of wanted) {
      for (let { lo } = rows; lo < rows.hi; ) {
        const bytes = this.#o.bandBytes * Math.min(1, FIRST_BAND * 2 ** cuts.length);
        const step = Math.max(1, Math.floor(bytes / rowBytes(rows.tensor)));
        const hi = Math.min(rows.hi, lo + step, this.#roundingAt(rows.tensor, lo).until);
        cuts.push({ rows, lo, hi });
        lo = hi;
      }
    }
    return cuts;
  }

  /** Stored elements [lo, hi), which lie in rows of one rounding, as F32 bytes, their scale applied. */
  async wide(tensor: Tensor, lo: number, hi: number, form: WeightVersion): Promise<Uint8Array> {
    const dtype = floatDType(tensor);
    const scale = this.#o.scaleOf.get(tensorKey(tensor)) ?? 1;
    const row = Math.floor(lo / columnsOf(tensor.shape));
    const rounding = form === "recast" ? this.#roundingAt(tensor, row).rounding : undefined;
    const stored = new Uint8Array((hi - lo) * widthOf(dtype));
    await this.#o.sources.read(extentsOf(tensor, lo, hi), stored, this.#o.signal);
    let bytes = stored;
    if (rounding !== undefined) {
      bytes = new Uint8Array((hi - lo) * widthOf(rounding.to));
      this.#o.rounder.round(stored, dtype, scale, rounding, bytes);
    }
    const wide = widen(rounding?.to ?? dtype, bytes);
    const factor = rounding === undefined ? scale : (rounding.scale ?? 1);
    if (factor !== 1) for (let i = 0; i < wide.length; i++) wide[i] = wide[i]! * factor;
    return new Uint8Array(wide.buffer);
  }

  /** Whether two runs of `count` elements are the same values; 0 has two signs, which no sum of products shows. */
  async alike(a: Tensor, atA: number, b: Tensor, atB: number, count: number): Promise<boolean> {
    let same = true;
    // Through the backend, though nothing is computed: one that only counts memory has no bytes to read.
    await this.#o.backend.upload(this.#bands[0]!.stored, 0, async () => {
      const [left, right] = await Promise.all(
        [[a, atA] as const, [b, atB] as const].map(async ([tensor, at]) => {
          const bytes = Buffer.alloc(count * widthOf(tensor.dtype));
          await this.#o.sources.read(extentsOf(tensor, at, at + count), bytes, this.#o.signal);
          return bytes;
        }),
      );
      same = left!.equals(right!) || sameValues(floatDType(a), left!, right!);
    });
    return same;
  }

  close(): void {
    for (const { stored, recast } of this.#bands) {
      this.#o.backend.release(stored);
      this.#o.backend.release(recast);
    }
  }

  async #fill(tensor: Tensor, lo: number, hi: number, turn: number): Promise<BandData> {
    const { backend, sources, rounder, signal } = this.#o;
    const regions = this.#bands[turn % 2]!;
    const columns = columnsOf(tensor.shape);
    const dtype = floatDType(tensor);
    const scale = this.#o.scaleOf.get(tensorKey(tensor)) ?? 1;
    const { rounding } = this.#roundingAt(tensor, lo);
    const stored = { region: regions.stored, dtype, scale };
    let recast = stored;
    await backend.upload(stored.region, (hi - lo) * rowBytes(tensor), async (view) => {
      await sources.read(extentsOf(tensor, lo * columns, hi * columns), view, signal);
      if (rounding === undefined) return;
      recast = { region: regions.recast, dtype: rounding.to, scale: rounding.scale ?? 1 };
      const size = (view.byteLength / widthOf(dtype)) * widthOf(rounding.to);
      await backend.upload(recast.region, size, (target) =>
        rounder.round(view, dtype, scale, rounding, target),
      );
    });
    return { lo, hi, forms: { stored, recast } };
  }

  /** How the other side stores a row, and up to which row it does so. */
  #roundingAt(
    tensor: Tensor,
    row: number,
  ): { readonly rounding: Rounding | undefined; readonly until: number } {
    const rows = this.#o.roundings.get(tensorKey(tensor)) ?? [];
    const found = rows.find(({ hi }) => row < hi);
    if (found === undefined) return { rounding: undefined, until: Infinity };
    return row < found.lo
      ? { rounding: undefined, until: found.lo }
      : { rounding: found.rounding, until: found.hi };
  }
}

/** A promise that is awaited later, whatever comes between: that it failed is no news until then. */
function awaited<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}

function sameValues(dtype: FloatDType, left: Uint8Array, right: Uint8Array): boolean {
  const [mine, theirs] = [widen(dtype, left), widen(dtype, right)];
  return mine.every((value, i) => value === theirs[i]);
}

function floatDType(tensor: Tensor): FloatDType {
  if (isFloat(tensor.dtype)) return tensor.dtype;
  const message = `a forward pass cannot read ${tensor.dtype}`;
  const next = "use `verify` bytes, which runs no forward pass";
  throw new IsologitError("UNSUPPORTED", message, { tensor: tensor.name }, { next });
}

/** Bytes of one row of a matrix, or of a stack of them. */
function rowBytes({ shape, dtype }: Tensor): number {
  return columnsOf(shape) * widthOf(dtype);
}

/** Elements of a row; those of a vector are rows of their own. */
export function columnsOf(shape: Shape): number {
  return shape.length < 2 ? 1 : shape.at(-1)!;
}
