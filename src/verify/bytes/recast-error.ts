/**
 * The error of a recast: how far the stored values of one role are from the values that they were rounded from. A scale that
 * a tensor shares can be right for its large rows and wrong for its small ones, so rows and named parts are measured too.
 */
import type { CastError } from "../../workers/calls.ts";

/** The error of a recast tensor, or of all of them together. */
export interface RecastError {
  /** number of elements */
  readonly elements: number;
  /** ||w - v|| / ||w|| of weights w and stored values v, to six digits; infinite if a number became infinite or NaN */
  readonly relL2: number;
  /** share of the elements that exceed the largest number of the dtype: they saturate, or become infinite */
  readonly clipped: number;
  /** share of the elements other than 0 that became 0 */
  readonly flushed: number;
  /** share of the elements that are not the nearest number of the dtype, with the stored scale */
  readonly notNearest: number;
}

/** Rows of a tensor that lost more than rounding explains. */
export interface LossyPart {
  /** part of a fused matrix, such as "dt"; null: the tensor has no named parts */
  readonly part: string | null;
  /** relative L2 of the whole part */
  readonly relL2: number;
  /** rows of the part whose own relative L2 is above the bound of a rounding, 2^-4 in E4M3 */
  readonly lossyRows: number;
  /** rows of the part that became all 0 */
  readonly lostRows: number;
  /** rows of the part */
  readonly rows: number;
  /** the first and the last lossy row, counted from the start of the tensor */
  readonly first: number;
  readonly last: number;
}

/** The error of a recast tensor, with the parts that the number of the whole tensor hides. */
export interface TensorError extends RecastError {
  readonly parts: readonly LossyPart[];
}

/** What the numbers of an error are computed from. */
export interface ErrorSums {
  readonly elements: number;
  readonly nonzero: number;
  readonly zeroed: number;
  readonly clipped: number;
  readonly notNearest: number;
  /** sum of (w - v)^2 */
  readonly difference: number;
  /** sum of w^2 */
  readonly norm: number;
}

const NO_ERROR = { elements: 0, nonzero: 0, zeroed: 0, clipped: 0, notNearest: 0, difference: 0, norm: 0 };

/** The error of all tensors together. */
export function errorOf(tensors: readonly ErrorSums[]): RecastError {
  const sum = (of: keyof ErrorSums) => tensors.reduce((total, sums) => total + sums[of], 0);
  const share = (count: number, of: number) => (of === 0 ? 0 : count / of);
  const elements = sum("elements");
  return {
    elements,
    relL2: relL2Of({ difference: sum("difference"), norm: sum("norm") }),
    clipped: share(sum("clipped"), elements),
    flushed: share(sum("zeroed"), sum("nonzero")),
    notNearest: share(sum("notNearest"), elements),
  };
}

/** Six digits, because the last digits depend on how a long row is divided into bands. */
function relL2Of({ difference, norm }: Pick<ErrorSums, "difference" | "norm">): number {
  if (difference === 0) return 0;
  const value = Math.sqrt(difference / norm);
  return Number.isNaN(value) ? Infinity : Number(value.toPrecision(6));
}

/** Sums of the rows of one part. */
interface PartSums {
  readonly name: string | null;
  /** rows before the end of the part */
  readonly end: number;
  readonly rows: number;
  difference: number;
  norm: number;
  lossyRows: number;
  lostRows: number;
  first: number;
  last: number;
}

/** Adds the errors of the bands of one tensor. */
export class ErrorMeter {
  readonly #sums = { ...NO_ERROR };
  readonly #parts: readonly PartSums[];
  readonly #bound: number;
  #part = 0;
  #row = 0;

  /**
   * @param rows  rows of the tensor; 0 if rows are not examined
   * @param parts rows of its named parts
   * @param bound largest relative error of a rounding
   */
  constructor(rows: number, parts: Readonly<Record<string, number>> | undefined, bound: number) {
    let end = 0;
    const all: readonly (readonly [string | null, number])[] =
      parts === undefined ? [[null, rows]] : Object.entries(parts);
    this.#parts = all.map(([name, count]) => {
      end += count;
      const sums = { difference: 0, norm: 0, lossyRows: 0, lostRows: 0, first: -1, last: -1 };
      return { name, rows: count, end, ...sums };
    });
    this.#bound = bound;
  }

  /**
   * Adds the next band.
   *
   * @param count    elements
   * @param isInRows the sums are those of rows
   */
  add({ loss, notNearest, beyond, sums: rows }: CastError, count: number, isInRows: boolean): void {
    const sums = this.#sums;
    sums.elements += count;
    sums.nonzero += loss.nonzero;
    sums.zeroed += loss.zeroed;
    sums.clipped += loss.clipped;
    sums.notNearest += notNearest + beyond;
    for (let i = 0; i < rows.length; i += 2) {
      sums.difference += rows[i]!;
      sums.norm += rows[i + 1]!;
      if (isInRows) this.#addRow(rows[i]!, rows[i + 1]!);
    }
  }

  /** The sums of all bands, and the parts that lost more than rounding explains. */
  finish(): { readonly sums: ErrorSums; readonly error: TensorError } {
    const parts = this.#parts
      .filter(({ lossyRows }) => lossyRows > 0)
      .map(({ name, rows, lossyRows, lostRows, first, last, ...sums }) => {
        return { part: name, relL2: relL2Of(sums), lossyRows, lostRows, rows, first, last };
      });
    return { sums: this.#sums, error: { ...errorOf([this.#sums]), parts } };
  }

  #addRow(difference: number, norm: number): void {
    const row = this.#row++;
    while (row >= this.#parts[this.#part]!.end) this.#part++;
    const part = this.#parts[this.#part]!;
    part.difference += difference;
    part.norm += norm;
    if (difference <= this.#bound ** 2 * norm) return;
    if (part.lossyRows++ === 0) part.first = row;
    part.last = row;
    if (difference === norm) part.lostRows++; // every stored value is 0
  }
}
