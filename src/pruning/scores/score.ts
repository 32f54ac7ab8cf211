/** Scores of layers and units of a model, from forward passes of the model and of the model without each layer. */
import { createMeter } from "../../../kernels/backend/meter.ts";
import { ADDRESSABLE_BYTES } from "../../../kernels/backend/wasm.ts";
import type { Backend } from "../../../kernels/kernel.ts";
import { decodeWeights, type ModelWithScales } from "../../checkpoint/load.ts";
import type { RunOptions } from "../../checkpoint/options.ts";
import { ignoreEvents } from "../../core/events.ts";
import { Sources } from "../../core/read.ts";
import { mainLayers } from "../../families/model.ts";
import type { Layer } from "../../families/structure.ts";
import { stageStreams } from "../../inference/activations.ts";
import { backendFor, memoryOf, threadsOf } from "../../inference/machine.ts";
import { partBytes } from "../../inference/memory.ts";
import { createRunner, layerBytes } from "../../inference/model-runner.ts";
import { Rounder } from "../../inference/rounding.ts";
import { CHUNK_IDS } from "./divergence.ts";
import {
  createPromptSums,
  type LayerScore,
  layerScores,
  type PromptSums,
  rankStability,
} from "./layer-scores.ts";
import { type PassPlan, type PassRequest, runPass, ScorePass } from "./pass.ts";
import { planPasses } from "./passes.ts";
import { scoreName } from "./unit-observer.ts";
import { UnitScores } from "./unit-scores.ts";
import { type LayerUnits, type Unavailable, unitsOf } from "./units.ts";

export interface ScoreOptions extends RunOptions {
  /** run only the model itself: no layer is skipped, and only the cosine of layers and the scores of units are computed */
  readonly cheap?: boolean;
}

/** The scores of a model, and how they were measured. */
export interface Scores {
  readonly layers: readonly LayerScore[];
  /** rank correlation of `mse` over even prompts with that over odd ones; null with one prompt, or if no layer was skipped */
  readonly stability: number | null;
  /** scores of units by tensor name */
  readonly units: ReadonlyMap<string, Float64Array>;
  readonly unavailable: readonly Unavailable[];
  /** number of readings of the weights */
  readonly passes: number;
  readonly backend: string;
  readonly device: string;
}

type PassReads = Parameters<typeof createRunner>[1]["onRead"];

/**
 * Scores all main layers and their units. Each pass reads the weights once.
 *
 * @param prompts token ids of each prompt, which runs from an empty state
 * @param onRead  receives the stored elements that the passes read
 * @throws UNSUPPORTED, PLAN_MEMORY, NON_FINITE, and read errors
 */
export async function scoreModel(
  stored: ModelWithScales,
  prompts: readonly (readonly number[])[],
  options: ScoreOptions,
  onRead?: PassReads,
): Promise<Scores> {
  const model = decodeWeights(stored);
  const layers = mainLayers(model);
  const { units, unavailable } = unitsOf(model);
  const skips = options.cheap === true ? [] : layers.map(({ index }) => index);
  const scoring = new Scoring(model, units, prompts, options, onRead);
  const lengths = prompts.map(({ length }) => length);
  const allowed = Math.min(memoryOf(options), ADDRESSABLE_BYTES);
  const passes = await planPasses(lengths, skips, allowed, (of, count) => scoring.passBytes(of, count));
  await using backend = await backendFor(options);
  const { sums, unitScores } = await scoring.run(passes, backend);
  const hidden = model.family.forward.streams(model.dims).residual!;
  const tokens = lengths.reduce((sum, length) => sum + length, 0);
  return {
    layers: layerScores(layers, sums, { tokens, hidden, skipped: skips.length > 0 }),
    stability: skips.length === 0 ? null : rankStability(sums, lengths),
    units: unitScores,
    unavailable,
    passes: passes.length,
    ...{ backend: backend.id, device: backend.device },
  };
}

class Scoring {
  readonly #model: ModelWithScales;
  readonly #units: readonly LayerUnits[];
  readonly #prompts: readonly (readonly number[])[];
  readonly #options: ScoreOptions;
  readonly #onRead: PassReads;
  readonly #known = new Map<string, number>();

  constructor(
    model: ModelWithScales,
    units: readonly LayerUnits[],
    prompts: readonly (readonly number[])[],
    options: ScoreOptions,
    onRead: PassReads,
  ) {
    this.#model = model;
    this.#units = units;
    this.#prompts = prompts;
    this.#options = options;
    this.#onRead = onRead;
  }

  async run(
    passes: readonly PassPlan[],
    backend: Backend,
  ): Promise<{ sums: readonly PromptSums[]; unitScores: ReadonlyMap<string, Float64Array> }> {
    const layers = mainLayers(this.#model);
    const sums = this.#prompts.map(() => createPromptSums(layers.length));
    const unitScores = new UnitScores();
    const columnNorms = new Map<string, Float64Array>();
    const { watch = ignoreEvents } = this.#options;
    watch({ type: "phase", phase: "importance", totalBytes: this.#work(passes) });
    let runs = 1;
    for (const { prompts, skips, observes } of passes) {
      await using sources = new Sources(this.#model.checkpoint.store);
      const request = await this.#request(
        backend,
        sources,
        prompts.map((i) => this.#prompts[i]!),
        {
          skips,
          observes,
          advance: (bytes) => {
            watch({ type: "advance", phase: "importance", bytes: bytes * runs });
          },
        },
      );
      await runPass({
        ...request,
        ...{ unitScores, columnNorms, sums: prompts.map((i) => sums[i]!) },
        onPlace: (layer, count) => {
          runs = count;
          if (layer !== null)
            watch({ type: "layer", layer: layer.index, of: layers.length, kind: layer.kind });
        },
      });
    }
    return { sums, unitScores: this.#finish(unitScores, columnNorms) };
  }

  /** Peak bytes of buffers of a pass, measured by a run that only counts memory. */
  async passBytes(lengths: readonly number[], skips: number): Promise<number> {
    const key = `${skips} of ${lengths}`;
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const meter = createMeter(threadsOf(this.#options));
    await using sources = new Sources(this.#model.checkpoint.store);
    const request = await this.#request(
      meter,
      sources,
      lengths.map((length) => new Array<number>(length).fill(0)),
      { skips: Array.from({ length: skips }, (_, i) => i), observes: true, advance: () => {} },
    );
    const pass = new ScorePass(request);
    await pass.begin();
    // One layer of each kind: first with the parent alone, as at the start, which decides where temporary data lies; then with
    // all runs, as at the end. The layers between need no more than the last.
    const layers = mainLayers(this.#model);
    const kinds = new Set(layers.map(({ kind }) => kind));
    const ofKinds = [...kinds].map((kind) => layers.find((layer) => layer.kind === kind)!);
    for (const runs of [[pass.parent], pass.allRuns])
      for (const layer of ofKinds) await pass.layer(layer, runs);
    if (skips > 0) await pass.head(CHUNK_IDS);
    pass.end();
    // Gaps between regions may be too small for the next region: there are two at most.
    const tokens = lengths.reduce((sum, length) => sum + length, 0);
    const bytes = meter.peakBytes + 2 * 4 * tokens * this.#widestStream(ofKinds);
    this.#known.set(key, bytes);
    return bytes;
  }

  /** Elements in a row of the widest stream of these layers. */
  #widestStream(layers: readonly Layer[]): number {
    const { dims, family } = this.#model;
    const widths = family.forward.streams(dims);
    const stages = layers.flatMap(({ kind }) => family.forward.block(kind, dims));
    return Math.max(...stages.flatMap((stage) => stageStreams(stage).makes.map((name) => widths[name]!)));
  }

  async #request(
    backend: Backend,
    sources: Sources,
    prompts: readonly (readonly number[])[],
    pass: Pick<PassRequest, "skips" | "observes"> & { advance(bytes: number): void },
  ): Promise<PassRequest> {
    const { signal } = this.#options;
    const memoryBytes = memoryOf(this.#options);
    const lengths = prompts.map(({ length }) => length);
    const runner = createRunner(this.#model, {
      ...{ backend, sources, signal },
      tokens: lengths.reduce((sum, length) => sum + length, 0),
      sequences: lengths,
      roundings: new Map(),
      rounder: await Rounder.create(),
      bandBytes: partBytes(memoryBytes),
      advance: pass.advance,
      onRead: this.#onRead,
    });
    return {
      ...{ model: this.#model, runner, backend, prompts, signal, units: this.#units },
      ...{ skips: pass.skips, observes: pass.observes, sums: [] },
      ...{ unitScores: new UnitScores(), columnNorms: new Map(), onPlace: () => {} },
      logitsBytes: Math.min(MAX_LOGITS_BYTES, memoryBytes / 8),
    };
  }

  /** Bytes of weights, each counted once for every run that uses them: the time of a pass follows this number. */
  #work(passes: readonly PassPlan[]): number {
    const bytes = layerBytes(this.#model);
    const layers = mainLayers(this.#model).map((layer) => ({ index: layer.index, bytes: bytes.of(layer) }));
    return passes.reduce((sum, { skips }) => {
      const runsAt = (index: number) => 1 + skips.filter((skip) => skip < index).length;
      const inLayers = layers.reduce((total, layer) => total + layer.bytes * runsAt(layer.index), 0);
      return sum + inLayers + (skips.length === 0 ? 0 : bytes.head * (1 + skips.length));
    }, 0);
  }

  /** The tensors of the units' scores. */
  #finish(
    scores: UnitScores,
    columnNorms: ReadonlyMap<string, Float64Array>,
  ): ReadonlyMap<string, Float64Array> {
    const tensors = new Map<string, Float64Array>();
    for (const { kind, layer, size, preactivation } of this.#units) {
      const name = (score: string) => scoreName(kind, score, layer);
      const activation = scores.scores(name("activation"), size);
      tensors.set(name("activation"), activation);
      if (preactivation !== undefined)
        tensors.set(name("preactivation"), scores.scores(name("preactivation")));
      const norms = columnNorms.get(name("contribution"));
      const contribution =
        norms === undefined
          ? scores.scores(name("contribution"))
          : activation.map((score, i) => score * norms[i]!); // the norm of a column is the same for every token
      tensors.set(name("contribution"), contribution);
    }
    const hidden = mainLayers(this.#model).flatMap((layer) => {
      const name = scoreName("hidden", "activation", layer);
      return scores.has(name) ? [scores.scores(name)] : [];
    });
    if (hidden.length > 0)
      tensors.set(
        "hidden.activation",
        hidden[0]!.map((_, i) => hidden.reduce((sum, ofLayer) => sum + ofLayer[i]!, 0)),
      );
    return tensors;
  }
}

/** Blocks of logits of all runs together. A larger block does not make the product of the head faster. */
const MAX_LOGITS_BYTES = 64 * 1024 * 1024;
