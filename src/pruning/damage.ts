/** What a cut does to a model on prompts, measured on logits. */
import { LogitsComparison } from "../verify/metrics.ts";

/** Over all positions of all prompts. */
export interface Damage {
  /** positions */
  readonly tokens: number;
  /** mean KL(source ‖ pruned), nats */
  readonly klMean: number;
  /** fraction of positions at which the best token is that of the source */
  readonly top1: number;
  /** mean negative log likelihood of the next token where a prompt has one, nats */
  readonly nllParent: number;
  readonly nllPruned: number;
  /** fraction of those positions whose best token is the next token */
  readonly accuracyParent: number;
  readonly accuracyPruned: number;
}

/** The damage on one prompt, as sums. */
export interface PromptDamage {
  readonly tokens: number;
  readonly kl: number;
  readonly agreeing: number;
  readonly nllParent: number;
  readonly nllPruned: number;
  readonly rightParent: number;
  readonly rightPruned: number;
  /** squared distance of the logits, and squared length of those of the source */
  readonly logitsDistance: number;
  readonly logitsLength: number;
}

/** Compares the logits of several prompts, whose rows follow each other. Each prompt is run from an empty state. */
export class DamageMeasure {
  readonly #prompts: readonly {
    readonly first: number;
    readonly rows: number;
    readonly comparison: LogitsComparison;
  }[];

  constructor(prompts: readonly (readonly number[])[]) {
    let first = 0;
    this.#prompts = prompts.map((ids) => {
      const prompt = { first, rows: ids.length, comparison: new LogitsComparison(ids) };
      first += ids.length;
      return prompt;
    });
  }

  /** As `LogitsComparison.add`: [rows of all prompts, width] each. */
  add(lo: number, width: number, parent: Float32Array, pruned: Float32Array): void {
    for (const { first, rows, comparison } of this.#prompts) {
      const [from, to] = [first * width, (first + rows) * width];
      comparison.add(lo, width, parent.subarray(from, to), pruned.subarray(from, to));
    }
  }

  ofPrompts(): readonly PromptDamage[] {
    return this.#prompts.map(({ rows, comparison }) => {
      const { klMean, nllA, nllB } = comparison.summary(0);
      const { same, nextA, nextB } = comparison.countBest();
      const { difference, reference } = comparison.squares;
      return {
        ...{ tokens: rows, kl: klMean * rows, agreeing: same },
        ...{ nllParent: nllA * (rows - 1), nllPruned: nllB * (rows - 1) },
        ...{ rightParent: nextA, rightPruned: nextB },
        ...{ logitsDistance: difference, logitsLength: reference },
      };
    });
  }

  result(): Damage {
    return damageOf(this.ofPrompts());
  }
}

/** Joins prompts, in their order: the division into readings then changes no bit. */
export function damageOf(prompts: readonly PromptDamage[]): Damage {
  const sum = (of: keyof PromptDamage) => prompts.reduce((total, prompt) => total + prompt[of], 0);
  const tokens = sum("tokens");
  const followed = Math.max(1, tokens - prompts.length); // the last token of a prompt has no next one
  return {
    ...{ tokens, klMean: sum("kl") / tokens, top1: sum("agreeing") / tokens },
    ...{ nllParent: sum("nllParent") / followed, nllPruned: sum("nllPruned") / followed },
    ...{ accuracyParent: sum("rightParent") / followed, accuracyPruned: sum("rightPruned") / followed },
  };
}
