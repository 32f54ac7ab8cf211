/** What a cut does to the predictions: the pruned model against its parent, over the positions of all prompts. It decides no verdict. */
import { LogitsComparison } from "../verify/metrics.ts";

export interface Damage {
  readonly tokens: number;
  /** mean of KL(parent || pruned), nats */
  readonly klMean: number;
  /** share of positions with the parent's best token */
  readonly top1: number;
  /** mean negative log likelihood of the next token, nats; 0 where no position has one */
  readonly nllParent: number;
  readonly nllPruned: number;
  /** share of positions whose best token is the next one */
  readonly accuracyParent: number;
  readonly accuracyPruned: number;
}

/** The best token of each position so far. */
class BestTokens {
  readonly #best: Float32Array;
  readonly ids: Int32Array;

  constructor(tokens: number) {
    this.#best = new Float32Array(tokens).fill(-Infinity);
    this.ids = new Int32Array(tokens).fill(-1);
  }

  add(lo: number, width: number, logits: Float32Array): void {
    for (let t = 0; t < this.ids.length; t++) {
      for (let i = 0; i < width; i++) {
        const logit = logits[t * width + i]!;
        if (!(logit > this.#best[t]!)) continue;
        this.#best[t] = logit;
        this.ids[t] = lo + i;
      }
    }
  }
}

export class DamageMeasure {
  readonly #prompts: readonly (readonly number[])[];
  readonly #comparisons: readonly LogitsComparison[];
  readonly #parent: BestTokens;
  readonly #pruned: BestTokens;

  /** @param prompts each is run from an empty state; their rows of logits follow one another */
  constructor(prompts: readonly (readonly number[])[]) {
    const tokens = prompts.reduce((sum, { length }) => sum + length, 0);
    this.#prompts = prompts;
    this.#comparisons = prompts.map((ids) => new LogitsComparison(ids));
    this.#parent = new BestTokens(tokens);
    this.#pruned = new BestTokens(tokens);
  }

  /** Adds logits of the token ids [lo, lo + width), [T, width] each; blocks must come in order. */
  add(lo: number, width: number, parent: Float32Array, pruned: Float32Array): void {
    this.#parent.add(lo, width, parent);
    this.#pruned.add(lo, width, pruned);
    let at = 0;
    for (const [i, { length }] of this.#prompts.entries()) {
      const [from, to] = [at * width, (at + length) * width];
      this.#comparisons[i]!.add(lo, width, parent.subarray(from, to), pruned.subarray(from, to));
      at += length;
    }
  }

  result(): Damage {
    const summaries = this.#comparisons.map((comparison) => comparison.summary(0));
    const lengths = this.#prompts.map(({ length }) => length);
    const followed = lengths.map((length) => length - 1);
    const pooled = (values: readonly number[], weights: readonly number[]) => {
      const all = weights.reduce((sum, weight) => sum + weight, 0);
      return all === 0 ? 0 : values.reduce((sum, value, i) => sum + value * weights[i]!, 0) / all;
    };
    const hits = (ids: Int32Array) => {
      let at = 0;
      return this.#prompts.map((prompt) => {
        const first = at;
        at += prompt.length;
        const right = prompt.slice(1).filter((next, t) => ids[first + t] === next).length;
        return prompt.length < 2 ? 0 : right / (prompt.length - 1);
      });
    };
    const [parent, pruned] = [this.#parent.ids, this.#pruned.ids];
    const of = (name: "klMean" | "nllA" | "nllB") => summaries.map((summary) => summary[name]);
    return {
      tokens: parent.length,
      klMean: pooled(of("klMean"), lengths),
      top1: parent.filter((id, t) => id >= 0 && id === pruned[t]).length / parent.length,
      nllParent: pooled(of("nllA"), followed),
      nllPruned: pooled(of("nllB"), followed),
      accuracyParent: pooled(hits(parent), followed),
      accuracyPruned: pooled(hits(pruned), followed),
    };
  }
}
