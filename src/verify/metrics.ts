/**
 * Measures of the difference of logits. Logits come in blocks of the vocabulary and are reduced at once. Inner loops use
 * plain number variables: destructuring a pair costs V8 five times the arithmetic.
 */
import { Distance, isFiniteNumber } from "../core/distance.ts";

/** Running softmax sums of one position, for KL, top-1 and NLL without the whole row of logits. */
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
  /** logits of the next token of the prompt; NaN until added */
  nextA: number;
  nextB: number;
  /** number of logits that are NaN or infinite */
  nonFiniteA: number;
  nonFiniteB: number;
}

export interface LogitsSummary {
  readonly maxAbs: number;
  readonly relL2: number;
  /** cosine of the angle between all logits of a and all logits of b; reported, not judged */
  readonly cosine: number;
  readonly klMean: number;
  readonly klP99: number;
  /** fraction of positions with the same best token, or with a margin of at most `noise` */
  readonly top1: number;
  /** mean negative log likelihood of the next token, nats; 0 where there is only one token */
  readonly nllA: number;
  readonly nllB: number;
  /** number of logits that are NaN or infinite; 0 in a working model */
  readonly nonFiniteA: number;
  readonly nonFiniteB: number;
  readonly positions: PositionsSummary;
}

/** Positions of the prompt at which two models differ. */
export interface PositionsSummary {
  /** KL divergence, nats; each value is the maximum of `per` consecutive positions, so that there are at most 512 values */
  readonly kl: readonly number[];
  readonly per: number;
  /** positions with the largest KL divergence, in descending order; positions with 0 are omitted */
  readonly worst: readonly WorstPosition[];
}

interface WorstPosition {
  readonly position: number;
  /** token id at this position */
  readonly id: number;
  /** nats */
  readonly kl: number;
  /** best next token of each side; null where its logits are all NaN */
  readonly bestA: number | null;
  readonly bestB: number | null;
  /** decoded text: before the token, the token, and both best next tokens; missing without a tokenizer */
  readonly text?: {
    readonly before: string;
    readonly token: string;
    readonly bestA: string | null;
    readonly bestB: string | null;
  };
}

const MAX_KLS = 512;
const MAX_WORST = 12;

/** Compares logits [T, vocab] of two models, given in blocks of token ids; `a` is the reference. */
export class LogitsComparison {
  readonly #ids: readonly number[];
  readonly #scored: number;
  readonly #positions: readonly Position[];
  readonly #distance: Distance;

  /**
   * @param ids    token ids of the prompt, [T]
   * @param scored number of leading tokens on which the loss is measured
   */
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

  /** Adds the logits of token ids [lo, lo + width): a and b are [T, width]. Blocks must come in order. */
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
   * @param noise noise floor of a logit in the reference, largest |difference|: two best tokens that are closer count as
   *              equal. A position without a best token does not agree
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
      positions: this.#summarizePositions(kls),
    };
  }

  /** Squared lengths of a - b and of a, over all positions. */
  get squares(): Distance["squares"] {
    return this.#distance.squares;
  }

  /** Numbers of positions with the same best token, and of those whose best token is the next token of the prompt. */
  countBest(): { readonly same: number; readonly nextA: number; readonly nextB: number } {
    const count = (holds: (p: Position, t: number) => boolean) => this.#positions.filter(holds).length;
    const isNext = (top: number, t: number) => t + 1 < this.#scored && top === this.#ids[t + 1];
    return {
      same: count(({ topA, topB }) => topA >= 0 && topA === topB),
      nextA: count(({ topA }, t) => isNext(topA, t)),
      nextB: count(({ topB }, t) => isNext(topB, t)),
    };
  }

  #summarizePositions(kls: readonly number[]): PositionsSummary {
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

/** Adds one token id at a time, so that the size of the blocks does not change the result. */
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
