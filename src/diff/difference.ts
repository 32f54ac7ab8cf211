/** Distance of two tensors, computed band by band. */
import { isDecodedBlock, type NumericDType, widthOf } from "../core/dtype.ts";
import { widen } from "../core/float.ts";

interface DiffSide {
  readonly dtype: NumericDType;
  /** real = stored * scale; null without a scale */
  readonly scale: number | null;
}

export class Difference {
  readonly #a: DiffSide;
  readonly #b: DiffSide;
  /** both sides have one form and one scale, so that bits can be compared */
  readonly #alike: boolean;
  /** distances in units of the last place are those of single numbers */
  readonly #hasUlp: boolean;
  #equal: boolean;
  #maxAbs = 0;
  #ulp = 0;
  #square = { of: 0, between: 0 };

  /** @param sameForm both checkpoints store the tensor in the same dtype, with scales of the same extent */
  constructor(a: DiffSide, b: DiffSide, sameForm: boolean) {
    this.#a = a;
    this.#b = b;
    this.#alike = sameForm && a.scale === b.scale;
    this.#equal = this.#alike;
    this.#hasUlp = this.#alike && !isDecodedBlock(a.dtype);
  }

  /** Adds elements, as stored on either side. */
  add(a: Uint8Array, b: Uint8Array): void {
    const left = widened(this.#a, a);
    if (this.#alike && Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(b)) {
      for (const value of left) this.#square.of += value * value;
      return;
    }
    this.#equal = false;
    const right = widened(this.#b, b);
    for (const [i, value] of left.entries()) {
      const apart = right[i]! - value;
      this.#square.of += value * value;
      this.#square.between += apart * apart;
      const size = Math.abs(apart);
      // The distance to a NaN is infinite; the distance of two infinities of one sign is 0.
      if (!(size <= this.#maxAbs) && value !== right[i]) this.#maxAbs = Number.isNaN(size) ? Infinity : size;
    }
    if (this.#hasUlp) this.#ulp = Math.max(this.#ulp, farthest(a, b, widthOf(this.#a.dtype)));
  }

  /**
   * `equal`: the same dtype, scales and bits. Norms are over real values; the relative difference from zeros only is
   * infinite.
   */
  result() {
    const { of, between } = this.#square;
    const relL2 = between === 0 ? 0 : Math.sqrt(between / of);
    return {
      equal: this.#equal,
      maxAbs: this.#maxAbs,
      relL2: Number.isNaN(relL2) ? Infinity : relL2,
      ulp: this.#hasUlp ? this.#ulp : null,
    };
  }
}

function widened({ dtype, scale }: DiffSide, bytes: Uint8Array): Float32Array {
  const values = widen(dtype, bytes);
  return scale === null ? values : values.map((value) => value * scale);
}

/** Largest distance of two codes in the order of the values of their dtype; -0 and 0 have the same position. */
function farthest(a: Uint8Array, b: Uint8Array, width: number): number {
  const [left, right] = [new DataView(a.buffer, a.byteOffset), new DataView(b.buffer, b.byteOffset)];
  const sign = 2 ** (8 * width - 1);
  const place = (view: DataView, at: number) => {
    const code =
      width === 1 ? view.getUint8(at) : width === 2 ? view.getUint16(at, true) : view.getUint32(at, true);
    return code >= sign ? sign - code : code;
  };
  let most = 0;
  for (let at = 0; at < a.byteLength; at += width) {
    most = Math.max(most, Math.abs(place(left, at) - place(right, at)));
  }
  return most;
}
