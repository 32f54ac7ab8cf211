/**
 * How far two results are apart. Logits come in blocks of the vocabulary and are reduced as they come. Every element of
 * every door passes here, so inner loops hold plain numbers: a pair taken apart costs V8 five times the arithmetic.
 */
import { Distance, isFiniteNumber } from "../core/distance.ts";

/**
 * ||a - b|| / ||a|| and the largest |a - b|, over any number of blocks. Sums are kept a row, so that how the
 * columns are cut into blocks changes no bit of the result.
 *
 * Two NaNs, or two infinities of one sign, are equal and count for nothing; where only one side is no number,
 * or they are unlike infinities, both measures are infinite.
 */

/** Running softmax sums of one position: enough for KL, top-1 and NLL without the whole row of logits. */
interface Position {
  /** sums of exp(a - firstA) and exp(b - firstB) */
  sumA: number;
  sumB: number;
  /** sum of exp(a - firstA) * (a - b) */
  cross: number;
  firstA: number;
  secondA: number;
  topA: number;
  firstB: number;
  topB: number;
  /** logits of the token that follows, NaN until seen */
  nextA: number;
  nextB: number;
  /** logits that are NaN or infinite */
  nonFiniteA: number;
  nonFiniteB: number;
}

export interface LogitsSummary {
  readonly maxAbs: number;
  readonly relL2: number;
  /** of the angle between all logits of a and of b; reported, and never judged */
  readonly cosine: number;
  readonly klMean: number;
  readonly klP99: number;
  /** share of positions whose best token agrees, or whose margin lies within `noise` */
  readonly top1: number;
  /** mean negative log likelihood of the token that follows, nats; 0 where there is only one token */
  readonly nllA: number;
  readonly nllB: number;
  /** logits that are NaN or infinite: none in a model that works */
  readonly nonFiniteA: number;
  readonly nonFiniteB: number;
  readonly positions: PositionsSummary;
}

/** Where along the prompt two models part. */
export interface PositionsSummary {
  /** KL divergence, nats; each value is the largest of `per` positions in a row, so that there are at most 512 */
  readonly kl: readonly number[];
  readonly per: number;
  /** the positions of the largest KL divergence, that first; none where it is 0 */
  readonly worst: readonly WorstPosition[];
}

export interface WorstPosition {
  readonly position: number;
  /** the token read there */
  readonly id: number;
  /** nats */
  readonly kl: number;
  /** the token that either side expects next; null where its logits are no numbers */
  readonly bestA: number | null;
  readonly bestB: number | null;
  /** what stands before the token, the token itself and the two best ones, where there is a tokenizer */
  readonly text?: {
    readonly before: string;
    readonly token: string;
    readonly bestA: string | null;
    readonly bestB: string | null;
  };
}

const MAX_KLS = 512;
const MAX_WORST = 12;

/** Compares logits [T, vocab] of two models, a the reference, given in blocks of words. */
export class LogitsComparison {
  readonly #ids: readonly number[];
  readonly #scored: number;
  readonly #positions: readonly Position[];
  readonly #distance: Distance;

  /** @param scored the loss is measured on the first so many tokens */
  constructor(ids: readonly number[], scored = ids.length) {
    this.#ids = ids;
    this.#scored = scored;
    this.#distance = new Distance(ids.length);
    this.#positions = ids.map(() => ({
      sumA: 0,
      sumB: 0,
      cross: 0,
      firstA: -Infinity,
      secondA: -Infinity,
      topA: -1,
      firstB: -Infinity,
      topB: -1,
      nextA: NaN,
      nextB: NaN,
      nonFiniteA: 0,
      nonFiniteB: 0,
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

  /**
   * @param noise the reference's own uncertainty, largest |difference| of a logit: closer calls are no flips.
   *              A position without a best token agrees with none
   */
  summary(noise: number): LogitsSummary {
    const kls = this.#positions.map((p) => {
      const kl = p.cross / p.sumA - (p.firstA + Math.log(p.sumA)) + (p.firstB + Math.log(p.sumB));
      return Number.isNaN(kl) ? Infinity : Math.max(0, kl); // rounding may leave -1e-17
    });
    const sorted = [...kls].sort((a, b) => a - b);
    const agreeing = this.#positions.filter(
      (p) => p.topA >= 0 && p.topB >= 0 && (p.topA === p.topB || p.firstA - p.secondA <= noise),
    );
    const followed = this.#positions.filter((_, t) => t + 1 < this.#scored);
    const mean = (values: readonly number[]) =>
      values.length === 0 ? 0 : values.reduce((a, b) => a + b, 0) / values.length;
    return {
      maxAbs: this.#distance.maxAbs,
      relL2: this.#distance.relL2,
      cosine: this.#distance.cosine,
      klMean: mean(kls),
      klP99: sorted[Math.min(sorted.length - 1, Math.ceil(0.99 * sorted.length) - 1)] ?? 0,
      top1: agreeing.length / this.#positions.length,
      nllA: mean(followed.map((p) => p.firstA + Math.log(p.sumA) - p.nextA)),
      nllB: mean(followed.map((p) => p.firstB + Math.log(p.sumB) - p.nextB)),
      nonFiniteA: this.#positions.reduce((sum, p) => sum + p.nonFiniteA, 0),
      nonFiniteB: this.#positions.reduce((sum, p) => sum + p.nonFiniteB, 0),
      positions: this.#along(kls),
    };
  }

  #along(kls: readonly number[]): PositionsSummary {
    const per = Math.max(1, Math.ceil(kls.length / MAX_KLS));
    const kl = Array.from({ length: Math.ceil(kls.length / per) }, (_, i) =>
      Math.max(...kls.slice(i * per, (i + 1) * per)),
    );
    const best = (word: number) => (word < 0 ? null : word);
    const worst = [...kls.keys()]
      .filter((t) => kls[t]! > 0)
      .sort((s, t) => (kls[s] === kls[t] ? s - t : kls[t]! - kls[s]!))
      .slice(0, MAX_WORST)
      .map((t) => {
        const { topA, topB } = this.#positions[t]!;
        return { position: t, id: this.#ids[t]!, kl: kls[t]!, bestA: best(topA), bestB: best(topB) };
      });
    return { kl, per, worst };
  }
}

/** One word after the other, so that it makes no difference where a block ends. */
function accumulate(p: Position, lo: number, a: Float32Array, b: Float32Array): void {
  for (let i = 0; i < a.length; i++) {
    const x = a[i]!;
    const y = b[i]!;
    if (!isFiniteNumber(x)) p.nonFiniteA++;
    if (!isFiniteNumber(y)) p.nonFiniteB++;
    if (x > p.firstA) {
      const shrink = Math.exp(p.firstA - x);
      p.sumA *= shrink;
      p.cross *= shrink;
      p.secondA = p.firstA;
      p.firstA = x;
      p.topA = lo + i;
    } else if (x > p.secondA) p.secondA = x;
    if (y > p.firstB) {
      p.sumB *= Math.exp(p.firstB - y);
      p.firstB = y;
      p.topB = lo + i;
    }
    const weight = Math.exp(x - p.firstA);
    p.sumA += weight;
    p.cross += weight * (x - y);
    p.sumB += Math.exp(y - p.firstB);
  }
}
