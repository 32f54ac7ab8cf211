/** The distance of two arrays of numbers. Loops use plain number variables: destructuring a pair costs V8 five times the arithmetic. */

/**
 * ||a - b|| / ||a|| and the largest |a - b|, over any number of blocks. There is one sum for each row, so that the
 * result does not depend, in any bit, on how the columns are cut into blocks.
 *
 * Two NaNs, or two infinities of one sign, are equal and add nothing. If only one of the two values is finite, or they
 * are infinities of different sign, both measures are infinite.
 */
export class Distance {
  readonly #difference: Float64Array;
  readonly #reference: Float64Array;
  readonly #other: Float64Array;
  readonly #product: Float64Array;
  maxAbs = 0;

  constructor(rows = 1) {
    this.#difference = new Float64Array(rows);
    this.#reference = new Float64Array(rows);
    this.#other = new Float64Array(rows);
    this.#product = new Float64Array(rows);
  }

  /** @param a, b [rows, width] each */
  add(a: Float32Array, b: Float32Array): this {
    const rows = this.#difference.length;
    const width = a.length / rows;
    for (let row = 0; row < rows; row++) {
      let difference = this.#difference[row]!;
      let reference = this.#reference[row]!;
      let other = this.#other[row]!;
      let product = this.#product[row]!;
      let maxAbs = this.maxAbs;
      const end = (row + 1) * width;
      for (let i = row * width; i < end; i++) {
        const x = a[i]!;
        const y = b[i]!;
        const finite = isFiniteNumber(x);
        if (finite) reference += x * x;
        other += y * y;
        product += x * y;
        if (x === y) continue;
        const size = finite && isFiniteNumber(y) ? Math.abs(x - y) : bothNaN(x, y) ? 0 : Infinity;
        difference += size * size;
        if (size > maxAbs) maxAbs = size;
      }
      this.#difference[row] = difference;
      this.#reference[row] = reference;
      this.#other[row] = other;
      this.#product[row] = product;
      this.maxAbs = maxAbs;
    }
    return this;
  }

  /** Relative L2 distance; infinite also if `a` is all zeros and `b` is not. */
  get relL2(): number {
    const difference = sum(this.#difference);
    return difference === 0 ? 0 : Math.sqrt(difference / sum(this.#reference));
  }

  /** Squared lengths of a - b and of a. */
  get squares(): { readonly difference: number; readonly reference: number } {
    return { difference: sum(this.#difference), reference: sum(this.#reference) };
  }

  /** Cosine of the angle between a and b, a weaker measure; NaN if either holds a NaN or an infinity, or is all zeros. */
  get cosine(): number {
    return sum(this.#product) / Math.sqrt(sum(this.#reference) * sum(this.#other));
  }
}

function sum(values: Float64Array): number {
  return values.reduce((total, value) => total + value, 0);
}

/** Like `Number.isFinite`, but V8 inlines it. */
export function isFiniteNumber(x: number): boolean {
  return x - x === 0;
}

function bothNaN(x: number, y: number): boolean {
  return Number.isNaN(x) && Number.isNaN(y);
}

/** Relative L2 distance of two arrays; exactly 0 for equal bits. */
export function relL2(a: Float32Array, b: Float32Array): number {
  return sameBits(a, b) ? 0 : new Distance().add(a, b).relL2;
}

/** Whether all bits are equal: -0 and 0 differ, and a NaN equals the same NaN. */
export function sameBits(a: Float32Array, b: Float32Array): boolean {
  return Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(
    Buffer.from(b.buffer, b.byteOffset, b.byteLength),
  );
}
