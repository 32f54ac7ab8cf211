/** What an output matrix adds to the stream for each unit, computed from its bands while a pass reads them. */
import { linear, widen } from "../../../kernels/index.ts";
import type { Backend, Region } from "../../../kernels/kernel.ts";
import { widthOf } from "../../core/dtype.ts";
import type { BandObserver } from "../../inference/products/multiplier.ts";

type Task = Parameters<BandObserver>[0];
type Band = Parameters<BandObserver>[1];

/** The L2 norm of each column of a matrix, [columns]. */
export class ColumnNorms implements Disposable {
  readonly #squares: Float64Array;
  readonly #backend: Backend;
  readonly #values: GrowingRegion;

  constructor(backend: Backend, columns: number) {
    this.#backend = backend;
    this.#squares = new Float64Array(columns);
    this.#values = new GrowingRegion(backend);
  }

  /** Adds the rows of a band. Bands must come in order. */
  async add({ tensor, inputOffset }: Task, { lo, hi, stored }: Band): Promise<void> {
    const columns = tensor.shape.at(-1)!;
    const count = (hi - lo) * columns;
    const values = this.#values.of(4 * count);
    const p = { count, dtype: stored.dtype, scale: Math.fround(stored.scale) };
    await this.#backend.run(widen, p, [stored.region], values);
    const own = this.#squares.subarray(inputOffset, inputOffset + columns);
    addSquares(await this.#backend.view(values, count), own);
  }

  get norms(): Float64Array {
    return this.#squares.map(Math.sqrt);
  }

  [Symbol.dispose](): void {
    this.#values[Symbol.dispose]();
  }
}

/** Adds the squares of each row of [rows, sums.length]. Not a loop in `add`: V8 optimises no loop that begins in an async function. */
function addSquares(values: Float32Array, sums: Float64Array): void {
  const columns = sums.length;
  for (let at = 0; at + columns <= values.length; at += columns)
    for (let i = 0; i < columns; i++) sums[i] = sums[i]! + values[at + i]! * values[at + i]!;
}

/** Results of products that wait in memory together, at most. */
const RESULT_BYTES = 8 * 1024 * 1024;

/**
 * For each token and unit the L2 norm of (the columns of the unit) times (the elements of the unit). A band is divided into one
 * matrix for each unit, and each of them is multiplied alone.
 */
export class UnitNorms implements Disposable {
  readonly #backend: Backend;
  readonly #tokens: number;
  readonly #size: number;
  readonly #count: number;
  /** [tokens, count] sum over rows of squared products */
  readonly #squares: Float64Array;
  readonly #divided: GrowingRegion;
  readonly #results: GrowingRegion;

  /** @param size columns of a unit */
  constructor(backend: Backend, tokens: number, count: number, size: number) {
    this.#backend = backend;
    this.#tokens = tokens;
    this.#size = size;
    this.#count = count;
    this.#squares = new Float64Array(tokens * count);
    this.#divided = new GrowingRegion(backend);
    this.#results = new GrowingRegion(backend);
  }

  /**
   * Adds the rows of a band. Bands must come in order.
   *
   * @param input [tokens, count * size]
   */
  async add({ tensor, inputOffset }: Task, { lo, hi, stored }: Band, input: Region): Promise<void> {
    const [columns, rows] = [tensor.shape.at(-1)!, hi - lo];
    const [size, tokens] = [this.#size, this.#tokens];
    const width = widthOf(stored.dtype);
    const units = columns / size;
    const divided = this.#divided.of(rows * columns * width);
    const bytes = await bytesOfBand(this.#backend, stored.region, rows * columns * width);
    await this.#backend.upload(divided, rows * columns * width, (target) =>
      divideColumns(bytes, target, rows, units, size * width),
    );
    const most = Math.max(1, Math.floor(RESULT_BYTES / (4 * tokens * rows)));
    for (let first = 0; first < units; first += most) {
      const count = Math.min(most, units - first);
      const results = this.#results.of(4 * count * tokens * rows); // [count, tokens, rows]
      for (let i = 0; i < count; i++) {
        const p = {
          ...{ tokens, rows, cols: size, dtype: stored.dtype, scale: Math.fround(stored.scale) },
          ...{ firstRow: (first + i) * rows, inWidth: this.#count * size },
          ...{ inFrom: inputOffset + (first + i) * size, outWidth: rows, outFrom: i * tokens * rows },
        };
        await this.#backend.run(linear, p, [divided, input], results);
      }
      const products = await this.#backend.view(results, count * tokens * rows);
      this.#addSquares(products, inputOffset / size + first, count, rows);
    }
  }

  #addSquares(products: Float32Array, first: number, count: number, rows: number): void {
    if (products.length < count * this.#tokens * rows) return; // a backend that only counts memory
    for (let i = 0, at = 0; i < count; i++) {
      for (let t = 0; t < this.#tokens; t++) {
        let sum = this.#squares[t * this.#count + first + i]!;
        for (const end = at + rows; at < end; at++) sum += products[at]! * products[at]!;
        this.#squares[t * this.#count + first + i] = sum;
      }
    }
  }

  /** [tokens, count] */
  get norms(): Float64Array {
    return this.#squares.map(Math.sqrt);
  }

  [Symbol.dispose](): void {
    for (const region of [this.#divided, this.#results]) region[Symbol.dispose]();
  }
}

/** A region that is replaced by a larger one when a band needs it: the first bands are short. */
class GrowingRegion implements Disposable {
  readonly #backend: Backend;
  #region: Region | undefined;

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  /** A region of at least so many bytes; its earlier contents are lost. */
  of(bytes: number): Region {
    if (this.#region !== undefined && this.#region.bytes >= bytes) return this.#region;
    this[Symbol.dispose]();
    this.#region = this.#backend.allocate(bytes);
    return this.#region;
  }

  [Symbol.dispose](): void {
    if (this.#region !== undefined) this.#backend.release(this.#region);
    this.#region = undefined;
  }
}

/** The bytes of a region, by its F32 view. */
async function bytesOfBand(backend: Backend, region: Region, bytes: number): Promise<Uint8Array> {
  const words = await backend.view(region, Math.ceil(bytes / 4));
  return new Uint8Array(words.buffer, words.byteOffset, Math.min(bytes, words.byteLength));
}

/** Writes the columns of each unit one after the other: [rows, units, unitBytes] becomes [units, rows, unitBytes]. */
function divideColumns(
  from: Uint8Array,
  to: Uint8Array,
  rows: number,
  units: number,
  unitBytes: number,
): void {
  for (let row = 0; row < rows; row++) {
    for (let unit = 0; unit < units; unit++) {
      const at = (row * units + unit) * unitBytes;
      to.set(from.subarray(at, at + unitBytes), (unit * rows + row) * unitBytes);
    }
  }
}
