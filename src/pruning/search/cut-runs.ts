/**
 * Runs a model and many cuts of it with one reading of its weights. A cut is the model without some layers and with some MLP
 * channels silenced. Cuts that were equal so far share one run: a run divides at the first layer that its cuts treat in
 * different ways.
 */

import type { Backend } from "../../../kernels/kernel.ts";
import { decodeWeights, type ModelWithScales } from "../../checkpoint/load.ts";
import { ignoreEvents, type Watch } from "../../core/events.ts";
import { Sources } from "../../core/read.ts";
import { mainLayers } from "../../families/model.ts";
import type { Layer } from "../../families/structure.ts";
import { blockWords, partBytes } from "../../inference/memory.ts";
import { createRunner } from "../../inference/model-runner.ts";
import { type ModelRun, ParallelRuns } from "../../inference/parallel-runs.ts";
import type { Cut } from "../cut.ts";
import { DamageMeasure, type PromptDamage } from "../damage.ts";
import { type ChannelMask, maskChannels } from "./channel-mask.ts";

/** What a cut changes on one prompt, as sums over its tokens. */
export interface PromptChange extends PromptDamage {
  /** squared distance of the final norm's output */
  readonly normDistance: number;
}

/** The parts of a cut that a search chooses. */
export type LayerCut = Pick<Cut, "layers" | "ffn">;

interface CutsRequest {
  readonly backend: Backend;
  /** token ids; each prompt begins with an empty state */
  readonly prompts: readonly (readonly number[])[];
  readonly memoryBytes: number;
  /** compare only this number of token ids from the start of the vocabulary; default all */
  readonly words?: number;
  readonly watch?: Watch;
  readonly signal: AbortSignal | undefined;
}

/** A run of the cuts that were equal so far. */
interface CutRun {
  readonly run: ModelRun;
  /** numbers of cuts; number 0 is the model itself */
  readonly cuts: readonly number[];
}

/**
 * Compares the logits of each cut, and what the head reads, with those of the model.
 *
 * @returns for each cut the change on each prompt
 * @throws UNSUPPORTED where the model does not run, TENSOR_MISSING, and read errors
 */
export async function compareCuts(
  stored: ModelWithScales,
  cuts: readonly LayerCut[],
  request: CutsRequest,
): Promise<readonly (readonly PromptChange[])[]> {
  const model = decodeWeights(stored);
  await using sources = new Sources(model.checkpoint.store);
  const { backend, prompts, memoryBytes, watch = ignoreEvents, signal } = request;
  const sequences = prompts.map(({ length }) => length);
  const tokens = sequences.reduce((sum, length) => sum + length, 0);
  const runner = createRunner(model, {
    ...{ backend, sources, tokens, sequences, signal },
    ...{ roundings: new Map(), rounder: { round() {} } }, // every run uses the stored weights
    bandBytes: partBytes(memoryBytes),
    advance: (bytes) => watch({ type: "advance", phase: "search", bytes }),
  });
  const parallel = new ParallelRuns({ model, runner, backend, tokens, experts: "own", signal });
  const changes = await new CutComparison(model, parallel, cuts, tokens, request).run();
  runner.close();
  return changes;
}

class CutComparison {
  readonly #model: ModelWithScales;
  readonly #parallel: ParallelRuns;
  readonly #cuts: readonly LayerCut[];
  readonly #tokens: number;
  readonly #o: CutsRequest;
  /** the first is the run of the model itself */
  #runs: CutRun[] = [];

  constructor(
    model: ModelWithScales,
    parallel: ParallelRuns,
    cuts: readonly LayerCut[],
    tokens: number,
    options: CutsRequest,
  ) {
    this.#model = model;
    this.#parallel = parallel;
    const layers = mainLayers(model).map(({ index }) => index);
    this.#cuts = [{ layers, ffn: new Map() }, ...cuts];
    this.#tokens = tokens;
    this.#o = options;
  }

  async run(): Promise<readonly (readonly PromptChange[])[]> {
    const { prompts, watch = ignoreEvents } = this.#o;
    const run = await this.#parallel.start(prompts.flat());
    this.#runs = [{ run, cuts: [...this.#cuts.keys()] }];
    const layers = mainLayers(this.#model);
    for (const layer of layers) {
      await this.#divide(layer);
      await this.#layer(layer);
      watch({ type: "layer", layer: layer.index, of: layers.length, kind: layer.kind });
    }
    const changes = await this.#head();
    for (const { run } of this.#runs) run.streams.releaseAll();
    return changes;
  }

  /** Divides each run whose cuts treat a layer in different ways. */
  async #divide(layer: Layer): Promise<void> {
    for (const [at, { run, cuts }] of [...this.#runs.entries()]) {
      const [own, ...others] = this.#alike(cuts, layer);
      this.#runs[at] = { run, cuts: own! };
      for (const parting of others) {
        const divided = this.#parallel.reserve();
        await this.#parallel.copyResidual(run, divided);
        this.#runs.push({ run: divided, cuts: parting });
      }
    }
  }

  /** Divides cuts into those that treat a layer in the same way. */
  #alike(cuts: readonly number[], layer: Layer): readonly (readonly number[])[] {
    const groups = new Map<string, number[]>();
    for (const cut of cuts) {
      const key = treatmentKey(this.#cuts[cut]!, layer);
      const group = groups.get(key);
      if (group === undefined) groups.set(key, [cut]);
      else group.push(cut);
    }
    return [...groups.values()];
  }

  /** Runs a layer in the runs that keep it: another run keeps its residual stream, and has no state of the layer. */
  async #layer(layer: Layer): Promise<void> {
    const { backend } = this.#o;
    const keeping = this.#runs.filter(({ cuts }) => this.#cuts[cuts[0]!]!.layers.includes(layer.index));
    const masks: ChannelMask[] = [];
    for (const { run, cuts } of keeping) {
      const kept = this.#cuts[cuts[0]!]!.ffn.get(layer.index);
      if (kept === undefined) continue;
      const mask = await maskChannels(backend, this.#model, kept);
      masks.push(mask);
      run.replace = mask.stage;
    }
    await this.#parallel.layer(
      layer,
      keeping.map(({ run }) => run),
    );
    for (const mask of masks) mask.release();
    for (const { run } of keeping) run.replace = undefined;
  }

  async #head(): Promise<readonly (readonly PromptChange[])[]> {
    const { backend, prompts, memoryBytes } = this.#o;
    const runs = this.#runs.map(({ run }) => run);
    const from = await this.#parallel.head(runs);
    const normDistances = await this.#normDistances(from);
    const vocab = this.#o.words ?? this.#model.dims.vocab;
    const width = Math.min(vocab, blockWords(partBytes(memoryBytes) / 2, this.#tokens));
    const blocks = runs.map(() => backend.allocate(4 * this.#tokens * width));
    const comparisons = runs.map(() => new DamageMeasure(prompts));
    for (let lo = 0; lo < vocab; lo += width) {
      const count = Math.min(width, vocab - lo);
      await this.#parallel.logits(from, lo, lo + count, runs, blocks);
      const parent = (await backend.view(blocks[0]!, this.#tokens * count)).slice();
      for (const [i, block] of blocks.entries())
        comparisons[i]!.add(lo, count, parent, await backend.view(block, this.#tokens * count));
    }
    for (const block of blocks) backend.release(block);
    const changes = comparisons.map((comparison, run) =>
      comparison.ofPrompts().map((damage, i) => ({ ...damage, normDistance: normDistances[run]![i]! })),
    );
    return this.#cuts
      .slice(1)
      .map((_, i) => changes[this.#runs.findIndex(({ cuts }) => cuts.includes(i + 1))]!);
  }

  /** Squared distances of what the head reads from the same of the model: for each run one number for each prompt. */
  async #normDistances(from: string): Promise<readonly (readonly number[])[]> {
    const { prompts } = this.#o;
    const [parent] = this.#runs as [CutRun, ...CutRun[]];
    const whole = (await parent.run.streams.view(from)).slice(); // [tokens, hidden]
    const hidden = whole.length / this.#tokens;
    const distances: number[][] = [];
    for (const { run } of this.#runs) {
      const own = await run.streams.view(from);
      let at = 0;
      distances.push(
        prompts.map(({ length }) => {
          let sum = 0;
          for (const end = at + length * hidden; at < end; at++) sum += (whole[at]! - own[at]!) ** 2;
          return sum;
        }),
      );
    }
    return distances;
  }
}

/** Equal for cuts that treat a layer in the same way. */
function treatmentKey({ layers, ffn }: LayerCut, { index }: Layer): string {
  return layers.includes(index) ? (ffn.get(index)?.join() ?? "whole") : "absent";
}
