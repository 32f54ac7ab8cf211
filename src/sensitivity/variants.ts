/**
 * Runs many variants of one model with one reading of its weights. In a variant, some units have rounded weights. Variants
 * with the same roundings so far share one run: a run divides at the first layer that its variants round differently.
 */
import type { Backend } from "../../kernels/kernel.ts";
import { decodeWeights, type ModelWithScales } from "../checkpoint/load.ts";
import { Distance } from "../core/distance.ts";
import { ignoreEvents, type Watch } from "../core/events.ts";
import { roundToBf16 } from "../core/float.ts";
import { Sources } from "../core/read.ts";
import { mainLayers } from "../families/model.ts";
import type { Layer } from "../families/structure.ts";
import { blockWords, partBytes } from "../inference/memory.ts";
import { createRunner } from "../inference/model-runner.ts";
import { type ModelRun, ParallelRuns } from "../inference/parallel-runs.ts";
import type { RowRounding } from "../inference/rounding.ts";
import type { ModelRunner } from "../inference/runner.ts";
import {
  mostVersions,
  type WeightChoice,
  type WeightRounder,
  type WeightVersion,
} from "../inference/weight-bands.ts";
import { LogitsComparison, type LogitsSummary } from "../verify/metrics.ts";

/** Of each unit whose weights are rounded, the version. */
export type Variant = ReadonlyMap<string, WeightVersion>;

/** The units of the weights, by the place of the model that reads them. */
export interface UnitPlaces {
  readonly embedding: readonly string[];
  of(layer: Layer): readonly string[];
  readonly head: readonly string[];
}

export interface VariantsRequest {
  readonly backend: Backend;
  readonly ids: readonly number[];
  /** number of leading ids that are text, on which the loss is measured; 0: measure it on all ids */
  readonly textTokens: number;
  /** by stored tensor: how its rows are rounded */
  readonly roundings: ReadonlyMap<string, readonly RowRounding[]>;
  readonly units: UnitPlaces;
  readonly rounder: WeightRounder;
  /** compare only this number of token ids from the start of the vocabulary; default all */
  readonly words?: number;
  readonly memoryBytes: number;
  readonly watch?: Watch;
  readonly signal: AbortSignal | undefined;
}

/** A run of the variants that had the same roundings so far. */
interface VariantRun {
  readonly run: ModelRun;
  /** numbers of variants; none in the run that measures noise */
  readonly variants: readonly number[];
}

/**
 * Compares the logits of each variant with those of the model itself. Experts are those that the model's router chooses, as
 * in a verification.
 *
 * @throws TENSOR_MISSING, and read errors
 */
export async function compareVariants(
  stored: ModelWithScales,
  variants: readonly Variant[],
  request: VariantsRequest,
): Promise<readonly LogitsSummary[]> {
  const model = decodeWeights(stored, { blocks: true });
  await using sources = new Sources(model.checkpoint.store);
  const { backend, ids, roundings, rounder, memoryBytes, watch = ignoreEvents, signal } = request;
  const runner = createRunner(model, {
    ...{ backend, sources, roundings, rounder, signal },
    tokens: ids.length,
    bandBytes: partBytes(memoryBytes / Math.max(1, mostVersions(roundings))),
    advance: (bytes) => watch({ type: "advance", phase: "sensitivity", bytes }),
  });
  const comparison = new VariantComparison(model, runner, variants, request);
  const summaries = await comparison.run();
  runner.close();
  return summaries;
}

class VariantComparison {
  readonly #model: ModelWithScales;
  readonly #parallel: ParallelRuns;
  readonly #variants: readonly Variant[];
  readonly #o: VariantsRequest;
  /** the first is the model itself, the second has rounded activations */
  #runs: VariantRun[] = [];

  constructor(
    model: ModelWithScales,
    runner: ModelRunner,
    variants: readonly Variant[],
    options: VariantsRequest,
  ) {
    const { backend, ids, signal } = options;
    this.#model = model;
    this.#parallel = new ParallelRuns({
      ...{ model, runner, backend, signal },
      ...{ tokens: ids.length, experts: "first" },
    });
    this.#variants = [new Map<string, WeightVersion>(), ...variants]; // the model itself is variant 0
    this.#o = options;
  }

  async run(): Promise<readonly LogitsSummary[]> {
    const { ids, units, watch = ignoreEvents } = this.#o;
    for (const variants of this.#alike([...this.#variants.keys()], units.embedding)) {
      this.#runs.push({ run: await this.#parallel.start(ids, this.#choiceOf(variants)), variants });
      if (this.#runs.length === 1) await this.#copy(this.#runs[0]!.run, []);
    }
    const layers = mainLayers(this.#model);
    for (const layer of layers) {
      await this.#divide(units.of(layer));
      await this.#parallel.layer(
        layer,
        this.#runs.map(({ run }) => run),
      );
      const noise = this.#runs[1]!.run.streams;
      await noise.put("residual", roundToBf16(await noise.view("residual")));
      watch({ type: "layer", layer: layer.index, of: layers.length, kind: layer.kind });
    }
    const summaries = await this.#head();
    for (const { run } of this.#runs) run.streams.releaseAll();
    return summaries;
  }

  /** Adds a run that begins as a copy of another run. */
  async #copy(from: ModelRun, variants: readonly number[]): Promise<void> {
    const run = this.#parallel.reserve();
    await this.#parallel.copyResidual(from, run);
    this.#runs.push({ run, variants });
  }

  /** Divides each run whose variants round these units differently, and gives each run its versions of the weights. */
  async #divide(units: readonly string[]): Promise<void> {
    for (const [at, { run, variants }] of [...this.#runs.entries()]) {
      const [first = [], ...others] = this.#alike(variants, units);
      this.#runs[at] = { run, variants: first };
      for (const other of others) await this.#copy(run, other);
    }
    for (const { run, variants } of this.#runs) run.weights = this.#choiceOf(variants);
  }

  /** Variants by number in groups with equal versions of these units, in the order of their first numbers. */
  #alike(variants: readonly number[], units: readonly string[]): readonly (readonly number[])[] {
    const groups = new Map<string, number[]>();
    for (const number of variants) {
      const key = units.map((unit) => this.#variants[number]!.get(unit) ?? "stored").join();
      groups.set(key, [...(groups.get(key) ?? []), number]);
    }
    return [...groups.values()];
  }

  /** The versions of the units that these variants have in common. */
  #choiceOf([first]: readonly number[]): WeightChoice {
    if (first === undefined) return "stored"; // the run that measures noise
    return (unit) => this.#variants[first]!.get(unit) ?? "stored";
  }

  async #head(): Promise<readonly LogitsSummary[]> {
    const { backend, ids, textTokens, units, memoryBytes } = this.#o;
    await this.#divide(units.head);
    const runs = this.#runs.map(({ run }) => run);
    const from = await this.#parallel.head(runs);
    const vocab = this.#o.words ?? this.#model.dims.vocab;
    const width = Math.min(vocab, blockWords(partBytes(memoryBytes) / 2, ids.length));
    const blocks = runs.map(() => backend.allocate(4 * ids.length * width));
    const comparisons = runs.map(() => new LogitsComparison(ids, textTokens || ids.length));
    const noise = new Distance(ids.length);
    for (let lo = 0; lo < vocab; lo += width) {
      const count = Math.min(width, vocab - lo);
      await this.#parallel.logits(from, lo, lo + count, runs, blocks);
      const own = (await backend.view(blocks[0]!, ids.length * count)).slice();
      for (const [i, block] of blocks.entries()) {
        const values = await backend.view(block, ids.length * count);
        comparisons[i]!.add(lo, count, own, values);
        if (i === 1) noise.add(own, values);
      }
    }
    for (const block of blocks) backend.release(block);
    const floor = Number.isFinite(noise.maxAbs) ? noise.maxAbs : 0;
    const ofRun = comparisons.map((comparison) => comparison.summary(floor));
    const runOf = (number: number) => this.#runs.findIndex(({ variants }) => variants.includes(number));
    return this.#variants.slice(1).map((_, i) => ofRun[runOf(i + 1)]!);
  }
}
