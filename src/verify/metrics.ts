/** How far two results are apart. Logits come in blocks of the vocabulary and are reduced as they come. */

/** Sums that give ||a - b|| / ||a|| over any number of blocks, and the largest |a - b|. */
export class Distance {
  #difference = 0;
  #reference = 0;
  maxAbs = 0;

  add(a: Float32Array, b: Float32Array): this {
    let [difference, reference, maxAbs] = [0, 0, this.maxAbs];
    for (let i = 0; i < a.length; i++) {
      const d = a[i]! - b[i]!;
      difference += d * d;
      reference += a[i]! * a[i]!;
      const size = Math.abs(d);
      if (!(size <= maxAbs)) maxAbs = size; // a NaN becomes the maximum, and stays
    }
    this.#difference += difference;
    this.#reference += reference;
    this.maxAbs = maxAbs;
    return this;
  }

  /** Relative L2; infinite where one side is no number or the reference is zero and the other is not. */
  get relL2(): number {
    if (this.#difference === 0) return 0;
    const ratio = Math.sqrt(this.#difference / this.#reference);
    return Number.isNaN(ratio) ? Infinity : ratio;
  }
}

export function relL2(a: Float32Array, b: Float32Array): number {
  return new Distance().add(a, b).relL2;
}

/** Equal bits, -0 and 0 apart and NaNs equal to themselves. */
export function sameBits(a: Float32Array, b: Float32Array): boolean {
  return Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(
    Buffer.from(b.buffer, b.byteOffset, b.byteLength),
  );
}

/** Running softmax sums of one position: enough for KL, top-1 and NLL without the whole row of logits. */
interface Position {
  maxA: number;
  sumA: number;
  maxB: number;
  sumB: number;
  /** sum of exp(a - maxA) * (a - b) */
  cross: number;
  firstA: number;
  secondA: number;
  topA: number;
  firstB: number;
  topB: number;
  /** logits of the token that follows, NaN until seen */
  nextA: number;
  nextB: number;
}

export interface LogitsSummary {
  readonly maxAbs: number;
  readonly relL2: number;
  readonly klMean: number;
  readonly klP99: number;
  /** share of positions whose best token agrees, or whose margin lies within `noise` */
  readonly top1: number;
  /** mean negative log likelihood of the token that follows, nats; 0 where there is only one token */
  readonly nllA: number;
  readonly nllB: number;
}

/** Compares logits [T, vocab] of two models, a the reference, given in blocks of words. */
export class LogitsComparison {
  readonly #ids: readonly number[];
  readonly #positions: readonly Position[];
  readonly #distance = new Distance();

  constructor(ids: readonly number[]) {
    this.#ids = ids;
    this.#positions = ids.map(() => ({
      maxA: -Infinity,
      sumA: 0,
      maxB: -Infinity,
      sumB: 0,
      cross: 0,
      firstA: -Infinity,
      secondA: -Infinity,
      topA: -1,
      firstB: -Infinity,
      topB: -1,
      nextA: NaN,
      nextB: NaN,
    }));
  }

  /** Words [lo, lo + width) of every position: a and b are [T, width]. */
  add(lo: number, width: number, a: Float32Array, b: Float32Array): void {
    this.#distance.add(a, b);
    for (const [t, position] of this.#positions.entries()) {
      const next = (this.#ids[t + 1] ?? -1) - lo;
      if (next >= 0 && next < width) {
        position.nextA = a[t * width + next]!;
        position.nextB = b[t * width + next]!;
      }
      accumulate(
        position,
        lo,
        a.subarray(t * width, (t + 1) * width),
        b.subarray(t * width, (t + 1) * width),
      );
    }
  }

  /** @param noise the reference's own uncertainty, largest |difference| of a logit: closer calls are no flips */
  summary(noise: number): LogitsSummary {
    const kls = this.#positions.map((p) => {
      const kl = p.cross / p.sumA - (p.maxA + Math.log(p.sumA)) + (p.maxB + Math.log(p.sumB));
      return Number.isNaN(kl) ? Infinity : Math.max(0, kl); // rounding may leave -1e-17
    });
    const sorted = [...kls].sort((a, b) => a - b);
    const agreeing = this.#positions.filter((p) => p.topA === p.topB || p.firstA - p.secondA <= noise);
    const followed = this.#positions.filter((_, t) => t + 1 < this.#ids.length);
    const mean = (values: readonly number[]) =>
      values.length === 0 ? 0 : values.reduce((a, b) => a + b, 0) / values.length;
    return {
      maxAbs: this.#distance.maxAbs,
      relL2: this.#distance.relL2,
      klMean: mean(kls),
      klP99: sorted[Math.min(sorted.length - 1, Math.ceil(0.99 * sorted.length) - 1)] ?? 0,
      top1: agreeing.length / this.#positions.length,
      nllA: mean(followed.map((p) => p.maxA + Math.log(p.sumA) - p.nextA)),
      nllB: mean(followed.map((p) => p.maxB + Math.log(p.sumB) - p.nextB)),
    };
  }
}

function accumulate(p: Position, lo: number, a: Float32Array, b: Float32Array): void {
  let [maxA, maxB] = [p.maxA, p.maxB];
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i]!, b[i]!];
    if (x > p.firstA) {
      p.secondA = p.firstA;
      p.firstA = x;
      p.topA = lo + i;
    } else if (x > p.secondA) p.secondA = x;
    if (y > p.firstB) {
      p.firstB = y;
      p.topB = lo + i;
    }
    if (x > maxA) maxA = x;
    if (y > maxB) maxB = y;
  }
  const shrinkA = Math.exp(p.maxA - maxA);
  p.sumA *= shrinkA;
  p.cross *= shrinkA;
  p.sumB *= Math.exp(p.maxB - maxB);
  for (let i = 0; i < a.length; i++) {
    const weight = Math.exp(a[i]! - maxA);
    p.sumA += weight;
    p.cross += weight * (a[i]! - b[i]!);
    p.sumB += Math.exp(b[i]! - maxB);
  }
  p.maxA = maxA;
  p.maxB = maxB;
}
