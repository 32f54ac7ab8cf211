/**
 * One reading of the weights: the model itself, the parent, and a run without each of the layers that are scored. The run
 * without layer L begins before layer L as a copy of the parent's residual stream, and continues after that layer.
 */
import type { Backend } from "../../../kernels/kernel.ts";
import type { ModelWithScales } from "../../checkpoint/load.ts";
import { mainLayers } from "../../families/model.ts";
import type { Layer } from "../../families/structure.ts";
import { blockWords } from "../../inference/memory.ts";
import { type ModelRun, ParallelRuns } from "../../inference/parallel-runs.ts";
import type { ModelRunner } from "../../inference/runner.ts";
import { CHUNK_IDS, LogitsDivergence } from "./divergence.ts";
import type { PromptSums } from "./layer-scores.ts";
import { UnitObserver } from "./unit-observer.ts";
import type { UnitScores } from "./unit-scores.ts";
import type { LayerUnits } from "./units.ts";

/** What one pass measures. */
export interface PassPlan {
  /** numbers of the prompts that run, in order */
  readonly prompts: readonly number[];
  /** numbers of the layers that are skipped, ascending */
  readonly skips: readonly number[];
  /** the parent's streams are scored too: the units, and the cosine of each layer */
  readonly observes: boolean;
}

export interface PassRequest {
  readonly model: ModelWithScales;
  /** created for all tokens of the pass */
  readonly runner: ModelRunner;
  readonly backend: Backend;
  /** token ids of each prompt of the pass */
  readonly prompts: readonly (readonly number[])[];
  readonly skips: readonly number[];
  readonly observes: boolean;
  readonly units: readonly LayerUnits[];
  /** receives the sums of each prompt of the pass, in order; empty: none is wanted */
  readonly sums: readonly PromptSums[];
  readonly unitScores: UnitScores;
  readonly columnNorms: Map<string, Float64Array>;
  /** bytes of all blocks of logits together */
  readonly logitsBytes: number;
  /** called before each layer and before the head (null), with the number of runs that take part */
  onPlace(layer: Layer | null, runs: number): void;
  readonly signal: AbortSignal | undefined;
}

export async function runPass(request: PassRequest): Promise<void> {
  const pass = new ScorePass(request);
  await pass.begin();
  for (const layer of mainLayers(request.model)) await pass.layer(layer);
  if (request.skips.length > 0) await pass.head();
  pass.end();
}

/** The steps of a pass; a run that only counts memory takes some of them. */
export class ScorePass {
  readonly #o: PassRequest;
  readonly #tokens: number;
  readonly #parallel: ParallelRuns;
  readonly #hidden: number;
  #parent!: ModelRun;
  /** the runs without a layer, by the layer's number; all are allocated at the start, so that memory stays in one piece */
  readonly #skipping = new Map<number, ModelRun>();

  constructor(request: PassRequest) {
    const { model, runner, backend, prompts, signal } = request;
    this.#o = request;
    this.#tokens = prompts.reduce((sum, { length }) => sum + length, 0);
    this.#hidden = model.family.forward.streams(model.dims).residual!;
    this.#parallel = new ParallelRuns({
      ...{ model, runner, backend, signal },
      ...{ tokens: this.#tokens, experts: "own" },
    });
  }

  async begin(): Promise<void> {
    this.#parent = await this.#parallel.start(this.#o.prompts.flat());
    for (const skip of this.#o.skips) this.#skipping.set(skip, this.#parallel.reserve());
  }

  /** Runs a layer in the parent and in the runs without an earlier layer. */
  async layer(layer: Layer, runs = this.#runsIn(layer.index)): Promise<void> {
    const { observes, onPlace } = this.#o;
    onPlace(layer, runs.length);
    const skipping = this.#skipping.get(layer.index);
    if (skipping !== undefined) await this.#parallel.copyResidual(this.#parent, skipping);
    if (!observes) return await this.#parallel.layer(layer, runs);
    const { backend, units, unitScores: scores, columnNorms, prompts } = this.#o;
    const lengths = prompts.map(({ length }) => length);
    using observer = new UnitObserver(layer, { backend, units, lengths, scores, columnNorms });
    const before = (await this.#parent.streams.view("residual")).slice();
    await this.#parallel.layer(layer, runs, observer);
    observer.finish();
    const after = await this.#parent.streams.view("residual");
    this.#eachToken((sums, t) => {
      sums.cosine[layer.index]! += 1 - cosineOf(before, after, t * this.#hidden, this.#hidden);
    });
  }

  get parent(): ModelRun {
    return this.#parent;
  }

  /** Every run, also those that begin later: what memory must hold in the last layer. */
  get allRuns(): readonly ModelRun[] {
    return this.#runsIn(Infinity);
  }

  /** @param limit compare only this number of token ids from the start of the vocabulary; default all */
  async head(limit = Infinity): Promise<void> {
    const { backend, logitsBytes, skips, model } = this.#o;
    const { vocab } = model.dims;
    const runs = this.allRuns;
    this.#o.onPlace(null, runs.length);
    const from = await this.#parallel.head(runs);
    const normed = (await this.#parent.streams.view(from)).slice();
    for (const [skip, { streams }] of this.#skipping) {
      const without = await streams.view(from);
      this.#eachToken((sums, t) => {
        sums.mse[skip]! += squaredDistance(normed, without, t * this.#hidden, this.#hidden);
      });
    }
    const most = blockWords(logitsBytes / runs.length, this.#tokens);
    const width = Math.min(vocab, Math.max(CHUNK_IDS, most - (most % CHUNK_IDS)));
    const blocks = runs.map(() => backend.allocate(4 * this.#tokens * width));
    const divergence = new LogitsDivergence(this.#tokens, skips.length);
    for (let lo = 0; lo < Math.min(vocab, limit); lo += width) {
      this.#o.signal?.throwIfAborted();
      const count = Math.min(width, vocab - lo, limit);
      await this.#parallel.logits(from, lo, lo + count, runs, blocks);
      const view = (run: number) => backend.view(blocks[run]!, this.#tokens * count);
      await divergence.add(count, await view(0), (run) => view(run + 1));
    }
    for (const block of blocks) backend.release(block);
    for (const [run, skip] of [...this.#skipping.keys()].entries()) {
      const [kl, squares] = [divergence.kl(run), divergence.squares(run)];
      this.#eachToken((sums, t) => {
        sums.kl[skip]! += kl[t]!;
        sums.logits[skip]! += squares[t]!;
      });
    }
    if (!this.#o.observes) return; // another pass of these prompts adds it
    this.#eachToken((sums, t) => {
      sums.parentLogits += divergence.parentSquares[t]!;
    });
  }

  end(): void {
    for (const { streams } of this.allRuns) streams.releaseAll();
    this.#o.runner.close();
  }

  /** The parent and the runs without a layer before this one. */
  #runsIn(layer: number): readonly ModelRun[] {
    const begun = [...this.#skipping].filter(([skip]) => skip < layer).map(([, run]) => run);
    return [this.#parent, ...begun];
  }

  /** Calls `use` for each token, with the sums of its prompt. */
  #eachToken(use: (sums: PromptSums, token: number) => void): void {
    let token = 0;
    for (const [i, sums] of this.#o.sums.entries())
      for (const end = token + this.#o.prompts[i]!.length; token < end; token++) use(sums, token);
  }
}

/** Cosine of two rows: exactly 1 for equal rows, and 0 where only one of them is zero. */
function cosineOf(a: Float32Array, b: Float32Array, from: number, count: number): number {
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = from; i < from + count; i++) {
    ab += a[i]! * b[i]!;
    aa += a[i]! * a[i]!;
    bb += b[i]! * b[i]!;
  }
  if (aa === 0 || bb === 0) return aa === bb ? 1 : 0;
  return ab / Math.sqrt(aa * bb);
}

function squaredDistance(a: Float32Array, b: Float32Array, from: number, count: number): number {
  let sum = 0;
  for (let i = from; i < from + count; i++) sum += (a[i]! - b[i]!) ** 2;
  return sum;
}
