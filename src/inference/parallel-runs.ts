/**
 * Several runs of one model that share one reading of its weights: each band is read once, and every run uses it. A run may
 * begin as a copy of another run between two layers.
 */
import { copy } from "../../kernels/index.ts";
import type { Backend, Region } from "../../kernels/kernel.ts";
import type { ExpertChoice, Stage } from "../families/forward.ts";
import type { MatchedModel } from "../families/model.ts";
import type { Layer } from "../families/structure.ts";
import { Streams, stageStreams } from "./activations.ts";
import { ExpertRows } from "./expert-rows.ts";
import { runEntry } from "./layers.ts";
import type { BandObserver, StreamSet } from "./products/multiplier.ts";
import type { ModelRunner } from "./runner.ts";
import type { BlockNames } from "./tensor-lookup.ts";
import type { WeightChoice } from "./weight-bands.ts";

interface ParallelRunsOptions {
  readonly model: MatchedModel;
  /** created for as many tokens as each run has */
  readonly runner: ModelRunner;
  readonly backend: Backend;
  readonly tokens: number;
  /** the experts of a run: those that its own router chooses, or those that the first run's router chooses */
  readonly experts: "own" | "first";
  readonly signal: AbortSignal | undefined;
}

/** One run. Between two layers, only its residual stream is allocated. */
export interface ModelRun {
  readonly streams: Streams;
  /** versions of the weights in the current layer */
  weights: WeightChoice;
  /** rows of its experts in the current layer */
  expertRows: ExpertRows | undefined;
  /** replaces the stages of the current layer that read no matrix; undefined: they run unchanged */
  replace: ((stage: Stage) => Stage) | undefined;
}

/** Watches the first run. */
export interface FirstRunObserver {
  /** called before a stage runs; `view` reads one of the streams that the stage reads, [rows, width] */
  before(stage: Stage, view: (stream: string) => Promise<Float32Array>): Promise<void>;
  /** receives the bands of a linear stage; null: none is wanted */
  bands(stage: Stage, inputs: ReadonlyMap<string, Region>): BandObserver | null;
}

export class ParallelRuns {
  readonly #o: ParallelRunsOptions;

  constructor(options: ParallelRunsOptions) {
    this.#o = options;
  }

  /** A run after the embedding, with the token table in the version that is chosen. */
  async start(ids: readonly number[], weights: WeightChoice = "stored"): Promise<ModelRun> {
    const { model, runner } = this.#o;
    const run = this.#create();
    run.weights = weights;
    await runner.embed(ids, weights, run.streams.regions.get("residual")!);
    await runEntry(model.family.forward, runner, [run.streams]);
    return run;
  }

  /** A run whose residual stream is allocated and not written yet. */
  reserve(): ModelRun {
    return this.#create();
  }

  /** Gives a run the residual stream of another run. */
  async copyResidual(from: ModelRun, to: ModelRun): Promise<void> {
    const [source, target] = [from, to].map(({ streams }) => streams.regions.get("residual")!);
    const { model, backend, tokens } = this.#o;
    const count = tokens * model.family.forward.streams(model.dims).residual!;
    await backend.run(copy, { count, from: 0, at: 0 }, [source!], target!);
  }

  /** Runs one layer in all runs. */
  async layer(layer: Layer, runs: readonly ModelRun[], observer?: FirstRunObserver): Promise<void> {
    const { model, runner } = this.#o;
    const stages = model.family.forward.block(layer.kind, model.dims);
    await this.#stages(stages, stages.length, runner.layer(layer), runs, observer);
    for (const rows of new Set(runs.map(({ expertRows }) => expertRows))) rows?.release();
    for (const run of runs) run.expertRows = undefined;
    for (const { streams } of runs) await streams.addResidual();
    runner.forget();
  }

  /**
   * Runs the stages of the head except the product that makes the logits.
   *
   * @returns the stream that this product reads, [T, hidden]
   */
  async head(runs: readonly ModelRun[]): Promise<string> {
    const { model, runner } = this.#o;
    const { head } = model.family.forward;
    await this.#stages(head, head.length - 1, runner.head, runs);
    return stageStreams(head.at(-1)!).reads[0]!;
  }

  /** Computes the logits of token ids [lo, hi) for each run, as `ModelRunner.logits` does. */
  async logits(
    from: string,
    lo: number,
    hi: number,
    runs: readonly ModelRun[],
    blocks: readonly Region[],
  ): Promise<void> {
    await this.#o.runner.logits(from, lo, hi, runs.map(setOf), blocks);
  }

  #create(): ModelRun {
    const { model, backend, tokens } = this.#o;
    const { dims, family } = model;
    const widths = family.forward.streams(dims);
    const rowsOf = (name: string) =>
      family.forward.dispatched.includes(name) ? run.expertRows!.rows : tokens;
    const streams = new Streams(backend, (name) => rowsOf(name) * widths[name]!);
    const run: ModelRun = { streams, weights: "stored", expertRows: undefined, replace: undefined };
    streams.make(["residual"]);
    return run;
  }

  /**
   * Runs the first `count` stages. Stages that read no matrix run one after the other in one run before the next run begins: so the streams between them
   * exist for one run at a time.
   */
  async #stages(
    stages: readonly Stage[],
    count: number,
    place: BlockNames,
    runs: readonly ModelRun[],
    observer?: FirstRunObserver,
  ): Promise<void> {
    const { runner, signal } = this.#o;
    const one = async (at: number, group: readonly ModelRun[]) => {
      signal?.throwIfAborted();
      const stage = stages[at]!;
      const first = group[0] === runs[0] ? runs[0] : undefined;
      for (const { streams } of group) streams.make(stageStreams(stage).makes);
      if (first !== undefined) await observer?.before(stage, (stream) => first.streams.view(stream));
      const bands = observer?.bands(stage, runs[0]!.streams.regions) ?? undefined;
      const own = isAlone(stage) ? (group[0]!.replace?.(stage) ?? stage) : stage;
      await runner.run(own, place, group.map(setOf), undefined, bands);
      if (stage.op === "kernel" && stage.choice !== undefined)
        await this.#choose(stage.to, stage.choice(this.#o.model.dims), group);
      for (const { streams } of group) streams.releaseUnused(stages, at);
    };
    for (let at = 0; at < count; ) {
      let end = at;
      while (end < count && isAlone(stages[end]!)) end++;
      for (const run of end > at ? runs : []) for (let i = at; i < end; i++) await one(i, [run]);
      if (end < count) await one(end, runs);
      at = end + 1;
    }
  }

  /** Deals the tokens of each run to the experts that were chosen. */
  async #choose(stream: string, choice: ExpertChoice, runs: readonly ModelRun[]): Promise<void> {
    const { backend, tokens, experts } = this.#o;
    const chosen = await runs[0]!.streams.view(stream);
    const shared =
      experts === "first" ? await ExpertRows.of(backend, chosen, tokens, choice, false) : undefined;
    for (const run of runs) {
      if (shared !== undefined && run !== runs[0]) await run.streams.put(stream, chosen);
      run.expertRows =
        shared ?? (await ExpertRows.of(backend, await run.streams.view(stream), tokens, choice, false));
    }
  }
}

const setOf = ({ streams, weights, expertRows }: ModelRun): StreamSet => ({
  ...streams.set(weights),
  expertRows,
});

/** Whether a stage reads no matrix, and chooses no experts. */
const isAlone = (stage: Stage): boolean =>
  stage.op !== "linear" && stage.op !== "experts" && !(stage.op === "kernel" && stage.choice !== undefined);
