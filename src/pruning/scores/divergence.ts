/**
 * How far the logits of several runs are from those of one run, the parent. Logits come in blocks of the vocabulary and are
 * reduced at once. The exponentials of the parent are computed once for all runs.
 */

/** Ids that are reduced together. A block begins and ends at a multiple, so that its size changes no bit of a result. */
export const CHUNK_IDS = 64;

/** Running sums of one run, one number for each position. */
interface RunSums {
  /** largest logit so far */
  readonly top: Float64Array;
  /** sum of exp(logit - top) */
  readonly sum: Float64Array;
  /** sum of exp(parent's logit - parent's top) * (parent's logit - logit) */
  readonly cross: Float64Array;
  /** sum of (parent's logit - logit)^2 */
  readonly square: Float64Array;
}

export class LogitsDivergence {
  readonly #tokens: number;
  readonly #parent: RunSums;
  readonly #runs: readonly RunSums[];

  /**
   * @param tokens positions of all prompts
   * @param runs   number of runs beside the parent
   */
  constructor(tokens: number, runs: number) {
    this.#tokens = tokens;
    this.#parent = createSums(tokens);
    this.#runs = Array.from({ length: runs }, () => createSums(tokens));
  }

  /**
   * Adds the logits of the next `width` token ids, [tokens, width]; `width` is a multiple of CHUNK_IDS except at the end of
   * the vocabulary.
   *
   * @param view reads the block of a run
   */
  async add(
    width: number,
    parent: Float32Array,
    view: (run: number) => Promise<Float32Array>,
  ): Promise<void> {
    const { top, sum, square } = this.#parent;
    const weights = new Float64Array(this.#tokens * width); // exp(logit - top at its chunk)
    const shrinks = new Float64Array(this.#tokens * Math.ceil(width / CHUNK_IDS));
    eachChunk(this.#tokens, width, (t, from, to, chunk) => {
      shrinks[chunk] = raiseTop(top, sum, t, parent, from, to);
      let [total, squares] = [sum[t]!, square[t]!];
      for (let i = from; i < to; i++) {
        weights[i] = Math.exp(parent[i]! - top[t]!);
        total += weights[i]!;
        squares += parent[i]! * parent[i]!;
      }
      sum[t] = total;
      square[t] = squares;
    });
    for (const [run, sums] of this.#runs.entries())
      this.#addRun(sums, width, parent, await view(run), weights, shrinks);
  }

  #addRun(
    { top, sum, cross, square }: RunSums,
    width: number,
    parent: Float32Array,
    own: Float32Array,
    weights: Float64Array,
    shrinks: Float64Array,
  ): void {
    eachChunk(this.#tokens, width, (t, from, to, chunk) => {
      raiseTop(top, sum, t, own, from, to);
      let [total, crossed, squares] = [sum[t]!, cross[t]! * shrinks[chunk]!, square[t]!];
      for (let i = from; i < to; i++) {
        const difference = parent[i]! - own[i]!;
        total += Math.exp(own[i]! - top[t]!);
        crossed += weights[i]! * difference;
        squares += difference * difference;
      }
      sum[t] = total;
      cross[t] = crossed;
      square[t] = squares;
    });
  }

  /** KL divergence of the parent from a run, in nats, at each position; rounding below 0 becomes 0. */
  kl(run: number): Float64Array {
    const { top, sum, cross } = this.#runs[run]!;
    const parent = this.#parent;
    return cross.map((crossed, t) => {
      const ofParent = parent.top[t]! + Math.log(parent.sum[t]!);
      return Math.max(0, crossed / parent.sum[t]! - ofParent + (top[t]! + Math.log(sum[t]!)));
    });
  }

  /** Squared distance of the logits of a run from those of the parent, at each position. */
  squares(run: number): Float64Array {
    return this.#runs[run]!.square;
  }

  /** Squared length of the parent's logits, at each position. */
  get parentSquares(): Float64Array {
    return this.#parent.square;
  }
}

function createSums(tokens: number): RunSums {
  const create = () => new Float64Array(tokens);
  return { top: create().fill(-Infinity), sum: create(), cross: create(), square: create() };
}

/** Calls `use` with the elements [from, to) of each chunk of each row. */
function eachChunk(
  tokens: number,
  width: number,
  use: (token: number, from: number, to: number, chunk: number) => void,
): void {
  let chunk = 0;
  for (let t = 0; t < tokens; t++) {
    const end = (t + 1) * width;
    for (let from = t * width; from < end; from += CHUNK_IDS)
      use(t, from, Math.min(from + CHUNK_IDS, end), chunk++);
  }
}

/** Raises `top` to the largest logit of a chunk. @returns the factor by which earlier sums became smaller */
function raiseTop(
  top: Float64Array,
  sum: Float64Array,
  t: number,
  logits: Float32Array,
  from: number,
  to: number,
): number {
  let most = top[t]!;
  for (let i = from; i < to; i++) if (logits[i]! > most) most = logits[i]!;
  if (most === top[t]) return 1;
  const shrink = Math.exp(top[t]! - most); // 0 at the first chunk
  top[t] = most;
  sum[t] = sum[t]! * shrink;
  return shrink;
}
