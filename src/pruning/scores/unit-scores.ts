/**
 * Scores of units: magnitudes are averaged over the tokens of a prompt, and prompts are joined by the root of the sum of
 * squares. The squares are added prompt by prompt, so the division into passes changes no bit.
 */

export class UnitScores {
  /** by tensor name: the sum over prompts of squared means, one number for each unit or channel */
  readonly #squares = new Map<string, Float64Array>();

  /** Adds the means of one prompt. Prompts must come in order. */
  add(name: string, means: Float64Array): void {
    const squares = this.#squares.get(name) ?? new Float64Array(means.length);
    for (const [i, mean] of means.entries()) squares[i] = squares[i]! + mean * mean;
    this.#squares.set(name, squares);
  }

  has(name: string): boolean {
    return this.#squares.has(name);
  }

  /** The score of each unit; a unit of `size` channels has the L2 norm of their scores. */
  scores(name: string, size = 1): Float64Array {
    const squares = this.#squares.get(name)!;
    return Float64Array.from({ length: squares.length / size }, (_, unit) => {
      let sum = 0;
      for (let i = unit * size; i < (unit + 1) * size; i++) sum += squares[i]!;
      return Math.sqrt(sum);
    });
  }
}

/** Mean over rows [from, from + rows) of |value|, for each column of [.., width]. */
export function meanMagnitudes(
  values: Float32Array | Float64Array,
  width: number,
  from: number,
  rows: number,
): Float64Array {
  const means = new Float64Array(width);
  for (let t = from; t < from + rows; t++) {
    const at = t * width;
    for (let i = 0; i < width; i++) means[i] = means[i]! + Math.abs(values[at + i]!);
  }
  return means.map((sum) => sum / rows);
}
