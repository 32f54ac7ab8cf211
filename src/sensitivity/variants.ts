/**
 * Runs many variants of one model with one reading of its weights. In a variant, some layers have rounded weights. Variants
 * with the same roundings so far share one run: a run divides at the first layer that its variants round differently.
 */
import type { Backend } from "../../kernels/kernel.ts";
import { decodeWeights, type ModelWithScales } from "../checkpoint/load.ts";
import { Distance } from "../core/distance.ts";
import { ignoreEvents, type Watch } from "../core/events.ts";
import { roundToBf16 } from "../core/float.ts";
import { Sources } from "../core/read.ts";
import type { ExpertChoice } from "../families/forward.ts";
import { mainLayers } from "../families/model.ts";
import type { Layer } from "../families/structure.ts";
import { Streams, stageStreams } from "../inference/activations.ts";
import { ExpertRows } from "../inference/expert-rows.ts";
import { runEntry } from "../inference/layers.ts";
import { blockWords, partBytes } from "../inference/memory.ts";
import { createRunner } from "../inference/model-runner.ts";
import type { RowRounding } from "../inference/rounding.ts";
import type { ModelRunner, StreamSet } from "../inference/runner.ts";
import type { WeightRounder } from "../inference/weight-bands.ts";
import { LogitsComparison, type LogitsSummary } from "../verify/metrics.ts";

/** The main layers, by number, whose weights are rounded. */
export type Variant = ReadonlySet<number>;

export interface VariantsRequest {
  readonly backend: Backend;
  readonly ids: readonly number[];
  /** number of leading ids that are text, on which the loss is measured; 0: measure it on all ids */
  readonly textTokens: number;
  /** by stored tensor: how its rows are rounded */
  readonly roundings: ReadonlyMap<string, readonly RowRounding[]>;
  readonly rounder: WeightRounder;
  /** compare only this number of token ids from the start of the vocabulary; default all */
  readonly words?: number;
  readonly memoryBytes: number;
  readonly watch?: Watch;
  readonly signal: AbortSignal | undefined;
}

/** Variants that had the same roundings so far. */
interface Run {
  readonly streams: Streams;
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
    bandBytes: partBytes(memoryBytes),
    advance: (bytes) => watch({ type: "advance", phase: "sensitivity", bytes }),
  });
  const comparison = new VariantComparison(model, runner, variants, request);
  const summaries = await comparison.run();
  runner.close();
  return summaries;
}

class VariantComparison {
  readonly #model: ModelWithScales;
  readonly #runner: ModelRunner;
  readonly #variants: readonly Variant[];
  readonly #o: VariantsRequest;
  /** the first is the model itself, the second has rounded activations */
  #runs: Run[] = [];
  #experts: ExpertRows | undefined;

  constructor(
    model: ModelWithScales,
    runner: ModelRunner,
    variants: readonly Variant[],
    options: VariantsRequest,
  ) {
    this.#model = model;
    this.#runner = runner;
    this.#variants = [new Set<number>(), ...variants]; // the model itself is variant 0
    this.#o = options;
  }

  async run(): Promise<readonly LogitsSummary[]> {
    const { ids, watch = ignoreEvents } = this.#o;
    const runs = [this.#variants.map((_, number) => number), []];
    this.#runs = runs.map((variants) => ({ streams: this.#streams(), variants }));
    for (const { streams } of this.#runs) {
      streams.make(["residual"]);
      await this.#runner.embed(ids, "stored", streams.regions.get("residual")!);
    }
    const { forward } = this.#model.family;
    const streams = this.#runs.map((run) => run.streams);
    await runEntry(forward, this.#runner, streams);
    const layers = mainLayers(this.#model);
    for (const layer of layers) {
      await this.#divide(layer);
      await this.#layer(layer);
      watch({ type: "layer", layer: layer.index, of: layers.length, kind: layer.kind });
    }
    const summaries = await this.#head();
    for (const { streams } of this.#runs) streams.releaseAll();
    return summaries;
  }

  #streams(): Streams {
    const { dims, family } = this.#model;
    const { forward } = family;
    const widths = forward.streams(dims);
    const rowsOf = (name: string) =>
      forward.dispatched.includes(name) ? this.#experts!.rows : this.#o.ids.length;
    return new Streams(this.#o.backend, (name) => rowsOf(name) * widths[name]!);
  }

  /** Divides each run whose variants round this layer differently. */
  async #divide({ index }: Layer): Promise<void> {
    for (const [at, { streams, variants }] of [...this.#runs.entries()]) {
      const rounded = variants.filter((number) => this.#variants[number]!.has(index));
      const kept = variants.filter((number) => !rounded.includes(number));
      if (rounded.length === 0 || kept.length === 0) continue;
      const divided = this.#streams();
      divided.make(["residual"]);
      await divided.put("residual", await streams.view("residual"));
      this.#runs[at] = { streams, variants: kept };
      this.#runs.push({ streams: divided, variants: rounded });
    }
  }

  async #layer(layer: Layer): Promise<void> {
    const { dims, family } = this.#model;
    const stages = family.forward.block(layer.kind, dims);
    const place = this.#runner.layer(layer);
    for (const [i, stage] of stages.entries()) {
      this.#o.signal?.throwIfAborted();
      for (const { streams } of this.#runs) streams.make(stageStreams(stage).makes);
      await this.#runner.run(stage, place, this.#sets(layer), this.#experts);
      if (stage.op === "kernel" && stage.choice !== undefined)
        await this.#followChoice(stage.to, stage.choice(dims));
      for (const { streams } of this.#runs) streams.releaseUnused(stages, i);
    }
    this.#runner.forget();
    this.#experts?.release();
    this.#experts = undefined;
    for (const { streams } of this.#runs) await streams.addResidual();
    const noise = this.#runs[1]!.streams;
    await noise.put("residual", roundToBf16(await noise.view("residual")));
  }

  #sets({ index }: Layer): readonly StreamSet[] {
    return this.#runs.map(({ streams, variants: [first] }) =>
      streams.set(first !== undefined && this.#variants[first]!.has(index) ? "recast" : "stored"),
    );
  }

  /** Gives every run the experts that the model's own router chooses. */
  async #followChoice(stream: string, choice: ExpertChoice): Promise<void> {
    const { backend, ids } = this.#o;
    const [own, ...others] = this.#runs;
    const chosen = await own!.streams.view(stream);
    for (const { streams } of others) await streams.put(stream, chosen);
    this.#experts = await ExpertRows.of(backend, chosen, ids.length, choice, false);
  }

  async #head(): Promise<readonly LogitsSummary[]> {
    const { backend, ids, textTokens, memoryBytes } = this.#o;
    const { family, dims } = this.#model;
    const { head } = family.forward;
    const sets = this.#runs.map(({ streams }) => streams.set());
    for (const stage of head.slice(0, -1)) {
      for (const { streams } of this.#runs) streams.make(stageStreams(stage).makes);
      await this.#runner.run(stage, this.#runner.head, sets);
    }
    const from = stageStreams(head.at(-1)!).reads[0]!;
    const vocab = this.#o.words ?? dims.vocab;
    const width = Math.min(vocab, blockWords(partBytes(memoryBytes) / 2, ids.length));
    const blocks = sets.map(() => backend.allocate(4 * ids.length * width));
    const comparisons = this.#runs.map(() => new LogitsComparison(ids, textTokens || ids.length));
    const noise = new Distance(ids.length);
    for (let lo = 0; lo < vocab; lo += width) {
      const count = Math.min(width, vocab - lo);
      await this.#runner.logits(from, lo, lo + count, sets, blocks);
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
