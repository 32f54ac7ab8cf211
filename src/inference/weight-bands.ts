/**
 * Reads stored weights in bands of rows, as stored and as the destination's recast rounds them. A band is read once for
 * all runs, then dropped.
 */
import type { Backend, Region } from "../../kernels/kernel.ts";
import { type Tensor, tensorKey } from "../core/checkpoint.ts";
import {
  type FloatDType,
  isDecodedBlock,
  isFloat,
  isNumeric,
  type NumericDType,
  type Shape,
  widthOf,
} from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { widen } from "../core/float.ts";
import { extentsOf, type Sources } from "../core/read.ts";
import type { OutputRows } from "../families/forward.ts";
import type { RoundedUnit, Rounding, RowRounding } from "./rounding.ts";
import type { RowRange } from "./tensor-lookup.ts";

/** Size of the first band as a fraction of a full band; each further band doubles, up to a full band. */
const FIRST_BAND = 1 / 8;

/** Elements that `alike` compares at a time: whole blocks of every quantised type, and little memory. */
const COMPARED_ELEMENTS = 1 << 20;

/** Which values of a weight: "stored", or the name of a version of its roundings, such as "recast". */
export type WeightVersion = string;
/** The version of every weight, or of each unit; a unit without the version is as it is stored. */
export type WeightChoice = WeightVersion | ((unit: string) => WeightVersion);

/** Rounds weights as the destination's recast does. */
export interface WeightRounder {
  /** Fills `target` with the rounded elements of `stored`. */
  round(stored: Uint8Array, from: FloatDType, scale: number, to: Rounding, target: Uint8Array): void;
}

export interface WeightsOptions {
  readonly backend: Backend;
  /** by `tensorKey`, as are `scaleOf` and `roundings` */
  readonly tensors: ReadonlyMap<string, Tensor>;
  readonly sources: Sources;
  /** scales of FP8 tensors; a tensor without an entry has scale 1 */
  readonly scaleOf: ReadonlyMap<string, number>;
  /** roundings of the rows of a tensor, ordered by row; rows without an entry are not recast */
  readonly roundings: ReadonlyMap<string, readonly RowRounding[]>;
  readonly rounder: WeightRounder;
  /** bytes of weights read at a time */
  readonly bandBytes: number;
  /** bands in memory: one is filled while the others are used. Default 2; 3 where bands are digested, which takes longer than their products */
  readonly buffers?: number | undefined;
  readonly advance: (bytes: number) => void;
  /** receives the stored bytes of elements [lo, hi) of a tensor whenever they are read; they are valid only during the call */
  readonly onRead?: ((tensor: Tensor, lo: number, hi: number, bytes: Uint8Array) => void) | undefined;
  readonly signal: AbortSignal | undefined;
  /**
   * by `tensorKey` of the tensor that ends a call of `eachBand`: the rows with which the next call probably begins. Their first band
   * is read before that call. Default none; nothing may be rounded
   */
  readonly following?: ReadonlyMap<string, MatrixRows> | undefined;
}

/** Some rows of a stored matrix. */
export interface MatrixRows extends RowRange {
  readonly tensor: Tensor;
}

/** The data of rows [lo, hi), in the versions that were asked for. */
export interface BandData {
  readonly lo: number;
  readonly hi: number;
  readonly stored: VersionData;
  version(choice: WeightChoice): VersionData;
  /** keeps the data until a promise is settled; else only until the use of the band ends */
  keep(until: Promise<unknown>): void;
}

export interface VersionData {
  readonly region: Region;
  readonly dtype: NumericDType;
  readonly scale: number;
  /** the numbers are values of roles, whatever form the tensor stores */
  readonly areValues: boolean;
}

/** What of a value is stored. Numbers that a rounding reads from elsewhere are values already. */
type StoredForm = Pick<OutputRows, "times" | "plus">;

/** The stored weights of one checkpoint. Call `close` at the end. */
export class Weights {
  readonly #o: WeightsOptions;
  readonly #bands: readonly { readonly stored: Region; readonly rounded: readonly Region[] }[];
  /** of each buffer, what is settled before it is filled again */
  readonly #kept: Promise<unknown>[] = [];
  /** number of bands that were filled: they take the buffers in turn */
  #turn = 0;
  #ahead: { readonly rows: MatrixRows; readonly band: Promise<BandData> } | undefined;

  constructor(options: WeightsOptions) {
    this.#o = options;
    const { backend, tensors, roundings, bandBytes } = options;
    const widest = Math.max(...[...tensors.values()].map(mostRowBytes));
    const bytes = Math.max(bandBytes, widest);
    const growth = [...roundings].flatMap(([key, rows]) =>
      rows.flatMap(({ rounded }) =>
        Object.values(rounded.versions).map(({ to }) => widthOf(to) / widthOf(tensors.get(key)!.dtype)),
      ),
    );
    const roundedBytes = Math.ceil(bytes * growth.reduce((most, factor) => Math.max(most, factor), 0));
    this.#bands = Array.from({ length: options.buffers ?? 2 }, () => ({
      stored: backend.allocate(bytes),
      rounded: Array.from({ length: mostVersions(roundings) }, () => backend.allocate(roundedBytes)),
    }));
  }

  /**
   * Reads all rows, a band at a time. `use` of a band is called while the band before is still in use, so that the
   * backend always has work waiting; the next band is read meanwhile.
   *
   * @param progress whether this reading counts in the progress of the run
   * @param choices  the versions that `use` reads
   */
  async eachBand<R extends MatrixRows>(
    wanted: readonly R[],
    progress: boolean,
    choices: readonly WeightChoice[],
    use: (rows: R, band: BandData) => Promise<void>,
  ): Promise<void> {
    const ahead = await this.#takeAhead(wanted[0]);
    const cuts = this.#cuts(wanted, ahead?.rows.hi);
    const fill = (i: number) => this.#fillNext(cuts[i]!.rows.tensor, cuts[i]!, choices);
    let filled = ahead?.band ?? (cuts.length === 0 ? undefined : fill(0));
    const uses: Promise<void>[] = [];
    try {
      for (const [i, { rows, lo, hi }] of cuts.entries()) {
        uses.push(markHandled(use(rows, await filled!)));
        await uses[i + 1 - this.#bands.length];
        if (i + 1 < cuts.length) filled = fill(i + 1);
        else this.#readAhead(rows.tensor);
        if (progress) this.#o.advance((hi - lo) * rowBytes(rows.tensor));
      }
      for (const used of uses) await used;
    } finally {
      await Promise.allSettled([...uses, filled]); // no band is in use or being filled when the buffers are released
    }
  }

  /**
   * Reads rows [lo, hi) as stored, while no call of `eachBand` runs. They must fit into a band, which stays valid until all other
   * buffers have been filled.
   */
  async band({ tensor, ...rows }: MatrixRows): Promise<BandData> {
    return await this.#fillNext(tensor, rows, ["stored"]);
  }

  /** What a tensor's stored numbers are multiplied by; 1 where it has no scale. */
  scaleOf(tensor: Tensor): number {
    return this.#o.scaleOf.get(tensorKey(tensor)) ?? 1;
  }

  /** Begins to read the first band of the rows that follow the last rows of a tensor. */
  #readAhead(tensor: Tensor): void {
    const next = this.#o.following?.get(tensorKey(tensor));
    if (next === undefined) return;
    const step = Math.max(1, Math.floor(this.#o.bandBytes / rowBytes(next.tensor)));
    const rows = { ...next, hi: Math.min(next.hi, next.lo + step) };
    this.#ahead = { rows, band: this.#fillNext(rows.tensor, rows, ["stored"]) };
  }

  /** The band that was read ahead, if `wanted` begins with it. Else its buffer is free when this call ends. */
  async #takeAhead(wanted: MatrixRows | undefined) {
    const ahead = this.#ahead;
    this.#ahead = undefined;
    if (ahead === undefined) return undefined;
    const { tensor, lo, hi } = ahead.rows;
    if (wanted !== undefined && tensor === wanted.tensor && lo === wanted.lo && hi <= wanted.hi) return ahead;
    await ahead.band.catch(() => {}); // a read that nobody asked for may fail
    return undefined;
  }

  #fillNext(tensor: Tensor, { lo, hi }: RowRange, choices: readonly WeightChoice[]): Promise<BandData> {
    return markHandled(this.#fill(tensor, lo, hi, this.#turn++, choices));
  }

  /**
   * Cuts rows into bands; all rows of a band are of one unit. The first bands are short so that computing starts early, unless the
   * first was read ahead: then it ends at row `aheadTo`.
   */
  #cuts<R extends MatrixRows>(
    wanted: readonly R[],
    aheadTo: number | undefined,
  ): readonly { rows: R; lo: number; hi: number }[] {
    const cuts: { rows: R; lo: number; hi: number }[] = [];
    for (const rows of wanted) {
      for (let { lo } = rows; lo < rows.hi; ) {
        const share = aheadTo === undefined ? Math.min(1, FIRST_BAND * 2 ** cuts.length) : 1;
        const step = Math.max(1, Math.floor((this.#o.bandBytes * share) / rowBytes(rows.tensor)));
        const hi = Math.min(rows.hi, lo + step, this.#roundingAt(rows.tensor, lo).until);
        cuts.push({ rows, lo, hi });
        lo = hi;
      }
    }
    return cuts;
  }

  /** Names the versions that a choice takes of a tensor. Equal names mean equal values. */
  versionsOf(tensor: Tensor, choice: WeightChoice): string {
    if (typeof choice === "string") return choice;
    const rows = this.#o.roundings.get(tensorKey(tensor)) ?? [];
    return rows.length === 0 ? "stored" : rows.map(({ rounded }) => choice(rounded.unit)).join("+");
  }

  /**
   * Stored elements [lo, hi), whole blocks, as F32 bytes, with the scale applied. Their rows must be of one unit.
   *
   * @param stored what of a value is stored: its product with `times`, and the sum with `plus`
   */
  async wide(
    tensor: Tensor,
    lo: number,
    hi: number,
    choice: WeightChoice,
    { times = 1, plus = 0 }: StoredForm = {},
  ): Promise<Uint8Array> {
    const dtype = numericDType(tensor);
    const scale = this.scaleOf(tensor);
    const row = Math.floor(lo / columnsOf(tensor.shape));
    const rounding = roundingOf(this.#roundingAt(tensor, row).rounded, choice);
    const stored = new Uint8Array((hi - lo) * widthOf(dtype));
    await this.#o.sources.read(extentsOf(tensor, lo, hi), stored, this.#o.signal);
    this.#o.onRead?.(tensor, lo, hi, stored);
    let bytes = stored;
    if (rounding !== undefined) {
      bytes = new Uint8Array((hi - lo) * widthOf(rounding.to));
      await this.#round(tensor, lo, hi, stored, rounding, bytes);
    }
    const wide = widen(rounding?.to ?? dtype, bytes);
    const factor = rounding === undefined ? scale : (rounding.scale ?? 1);
    if (factor !== 1) for (let i = 0; i < wide.length; i++) wide[i] = wide[i]! * factor;
    if ((times !== 1 || plus !== 0) && rounding?.read === undefined)
      for (let i = 0; i < wide.length; i++) wide[i] = (wide[i]! - plus) / times;
    return new Uint8Array(wide.buffer);
  }

  /** Whether `count` elements at two places are equal. 0 equals -0: the sign of a zero does not change a sum of products. */
  async alike(a: Tensor, atA: number, b: Tensor, atB: number, count: number): Promise<boolean> {
    let same = true;
    // Reads inside `upload`, although nothing is uploaded: a backend that only counts memory then reads no bytes.
    await this.#o.backend.upload(this.#bands[0]!.stored, 0, async () => {
      for (let at = 0; same && at < count; at += COMPARED_ELEMENTS) {
        const size = Math.min(COMPARED_ELEMENTS, count - at);
        const [left, right] = await Promise.all([
          this.#bytes(a, atA + at, size),
          this.#bytes(b, atB + at, size),
        ]);
        same = left.equals(right) || sameValues(numericDType(a), left, right);
      }
    });
    return same;
  }

  async #bytes(tensor: Tensor, from: number, count: number): Promise<Buffer> {
    const bytes = Buffer.alloc(count * widthOf(tensor.dtype));
    await this.#o.sources.read(extentsOf(tensor, from, from + count), bytes, this.#o.signal);
    return bytes;
  }

  close(): void {
    for (const { stored, rounded } of this.#bands)
      for (const region of [stored, ...rounded]) this.#o.backend.release(region);
  }

  async #fill(
    tensor: Tensor,
    lo: number,
    hi: number,
    turn: number,
    choices: readonly WeightChoice[],
  ): Promise<BandData> {
    const { backend, sources, signal } = this.#o;
    const buffer = turn % this.#bands.length;
    const regions = this.#bands[buffer]!;
    await this.#kept[buffer];
    const columns = columnsOf(tensor.shape);
    const dtype = numericDType(tensor);
    const { rounded } = this.#roundingAt(tensor, lo);
    const scale = this.scaleOf(tensor);
    const stored = { region: regions.stored, dtype, scale, areValues: false };
    const versions = new Map<Rounding | undefined, VersionData>([[undefined, stored]]);
    for (const rounding of choices.map((choice) => roundingOf(rounded, choice))) {
      if (rounding === undefined || versions.has(rounding)) continue;
      const region = regions.rounded[versions.size - 1]!; // there is one for each version of a unit
      const areValues = rounding.read !== undefined;
      versions.set(rounding, { region, dtype: rounding.to, scale: rounding.scale ?? 1, areValues });
    }
    await backend.upload(stored.region, (hi - lo) * rowBytes(tensor), async (view) => {
      await sources.read(extentsOf(tensor, lo * columns, hi * columns), view, signal);
      this.#o.onRead?.(tensor, lo * columns, hi * columns, view);
      for (const [rounding, { region }] of versions) {
        if (rounding === undefined) continue;
        const size = (view.byteLength / widthOf(dtype)) * widthOf(rounding.to);
        await backend.upload(region, size, (target) =>
          this.#round(tensor, lo * columns, hi * columns, view, rounding, target),
        );
      }
    });
    return {
      ...{ lo, hi, stored },
      version: (choice) => versions.get(roundingOf(rounded, choice))!,
      keep: (until) => {
        this.#kept[buffer] = until.catch(() => {}); // the caller gets the error
      },
    };
  }

  /** Fills `target` with elements [lo, hi) of a tensor as the destination stores them. */
  async #round(
    tensor: Tensor,
    lo: number,
    hi: number,
    stored: Uint8Array,
    rounding: Rounding,
    target: Uint8Array,
  ): Promise<void> {
    const { rounder, signal } = this.#o;
    const key = tensorKey(tensor);
    if (rounding.read !== undefined) await rounding.read(key, lo, hi, target, signal);
    else if (isFloat(tensor.dtype))
      rounder.round(stored, tensor.dtype, this.scaleOf(tensor), rounding, target);
    else throw new IsologitError("INTERNAL", `${tensor.dtype} is rounded`, { tensor: tensor.name });
  }

  /** What a row may be rounded to, and the first later row of another unit. */
  #roundingAt(
    tensor: Tensor,
    row: number,
  ): { readonly rounded: RoundedUnit | undefined; readonly until: number } {
    const rows = this.#o.roundings.get(tensorKey(tensor)) ?? [];
    const found = rows.find(({ hi }) => row < hi);
    if (found === undefined) return { rounded: undefined, until: Infinity };
    return row < found.lo
      ? { rounded: undefined, until: found.lo }
      : { rounded: found.rounded, until: found.hi };
  }
}

/** Number of roundings that one band may need together. */
export function mostVersions(roundings: WeightsOptions["roundings"]): number {
  const counts = [...roundings.values()].flatMap((rows) =>
    rows.map(({ rounded }) => Object.keys(rounded.versions).length),
  );
  return counts.reduce((most, count) => Math.max(most, count), 0);
}

/** Undefined for weights as they are stored. */
function roundingOf(rounded: RoundedUnit | undefined, choice: WeightChoice): Rounding | undefined {
  if (rounded === undefined || choice === "stored") return undefined;
  return rounded.versions[typeof choice === "string" ? choice : choice(rounded.unit)];
}

/** Marks a promise as handled so that an early rejection does not end the process; the caller awaits it later. */
function markHandled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}

function sameValues(dtype: NumericDType, left: Uint8Array, right: Uint8Array): boolean {
  const [leftValues, rightValues] = [widen(dtype, left), widen(dtype, right)];
  return leftValues.every((value, i) => value === rightValues[i]);
}

function numericDType(tensor: Tensor): NumericDType {
  if (isNumeric(tensor.dtype)) return tensor.dtype;
  const message = `a forward pass cannot read ${tensor.dtype}`;
  const next = "use `verify` bytes, which runs no forward pass";
  throw new IsologitError("UNSUPPORTED", message, { tensor: tensor.name }, { next });
}

/** Bytes of one row of a matrix or of a stack of matrices. */
function rowBytes({ shape, dtype }: Tensor): number {
  return columnsOf(shape) * widthOf(dtype);
}

/** As `rowBytes`; a control reads the values of a quantised tensor in its place. */
function mostRowBytes(tensor: Tensor): number {
  return isDecodedBlock(tensor.dtype) ? 4 * columnsOf(tensor.shape) : rowBytes(tensor);
}

/** Elements per row; a vector has one element per row. */
export function columnsOf(shape: Shape): number {
  return shape.length < 2 ? 1 : shape.at(-1)!;
}
