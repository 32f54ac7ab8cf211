/** Watches the parent's run and scores the units of each layer, and the channels of the hidden state. */
import type { Backend, Region } from "../../../kernels/kernel.ts";
import type { Stage } from "../../families/forward.ts";
import type { Layer } from "../../families/structure.ts";
import type { FirstRunObserver } from "../../inference/parallel-runs.ts";
import type { BandObserver } from "../../inference/products/multiplier.ts";
import { ColumnNorms, UnitNorms } from "./output-matrix.ts";
import { meanMagnitudes, type UnitScores } from "./unit-scores.ts";
import type { LayerUnits } from "./units.ts";

/** The output of the norm that every layer begins with. */
const NORMED = "u";

/** The name of a tensor in the file of scores. */
export const scoreName = (kind: string, score: string, layer: Layer): string =>
  `${kind}.${score}.${layer.index}`;

interface UnitObserverOptions {
  readonly backend: Backend;
  readonly units: readonly LayerUnits[];
  /** tokens of each prompt of the pass */
  readonly lengths: readonly number[];
  readonly scores: UnitScores;
  /** by tensor name: L2 norms of the columns of output matrices, found once in all passes */
  readonly columnNorms: Map<string, Float64Array>;
}

/** Create one for each layer of a pass; call `finish` after the layer. */
export class UnitObserver implements FirstRunObserver, Disposable {
  readonly #o: UnitObserverOptions;
  readonly #layer: Layer;
  readonly #units: readonly LayerUnits[];
  readonly #tokens: number;
  readonly #unitNorms = new Map<LayerUnits, UnitNorms>();
  readonly #columns = new Map<LayerUnits, ColumnNorms>();
  readonly #seen = new Set<string>();

  constructor(layer: Layer, options: UnitObserverOptions) {
    this.#o = options;
    this.#layer = layer;
    this.#units = options.units.filter((units) => units.layer === layer);
    this.#tokens = options.lengths.reduce((sum, length) => sum + length, 0);
  }

  async before(stage: Stage, view: (stream: string) => Promise<Float32Array>): Promise<void> {
    const reads = "from" in stage ? [stage.from].flat() : [];
    for (const stream of reads) {
      if (this.#seen.has(stream)) continue;
      this.#seen.add(stream);
      const wanted = this.#units.filter((units) => streamsOf(units).includes(stream));
      if (wanted.length === 0 && stream !== NORMED) continue;
      const means = this.#means(await view(stream));
      if (stream === NORMED) this.#addMeans(scoreName("hidden", "activation", this.#layer), means);
      for (const units of wanted) {
        if (units.activation === stream) this.#add(units, "activation", means);
        if (units.preactivation === stream) this.#add(units, "preactivation", means);
      }
    }
  }

  bands(stage: Stage, inputs: ReadonlyMap<string, Region>): BandObserver | null {
    const units = this.#units.find(({ output }) => stage.op === "linear" && stage.from === output);
    if (units === undefined) return null;
    const { backend, columnNorms } = this.#o;
    const input = inputs.get(units.output)!;
    let add: BandObserver;
    if (units.kind === "ffn") {
      if (columnNorms.has(scoreName(units.kind, "contribution", units.layer))) return null;
      const columns = new ColumnNorms(backend, units.count);
      this.#columns.set(units, columns);
      add = (task, band) => columns.add(task, band);
    } else {
      const norms = new UnitNorms(backend, this.#tokens, units.count, units.size);
      this.#unitNorms.set(units, norms);
      add = (task, band) => norms.add(task, band, input);
    }
    // The next band may arrive while this one is still being added; sums need the order of bands.
    let last: Promise<void> = Promise.resolve();
    return (task, band) => {
      last = last.then(() => add(task, band));
      return last;
    };
  }

  /** Takes over what the bands of the layer's output matrices gave. */
  finish(): void {
    for (const [{ kind }, columns] of this.#columns)
      this.#o.columnNorms.set(scoreName(kind, "contribution", this.#layer), columns.norms);
    for (const [units, norms] of this.#unitNorms) this.#add(units, "contribution", this.#means(norms.norms));
  }

  #add({ kind, layer }: LayerUnits, score: string, means: readonly Float64Array[]): void {
    this.#addMeans(scoreName(kind, score, layer), means);
  }

  #addMeans(name: string, means: readonly Float64Array[]): void {
    for (const ofPrompt of means) this.#o.scores.add(name, ofPrompt);
  }

  /** For each prompt the mean magnitude of each column of [tokens, width]. */
  #means(values: Float32Array | Float64Array): readonly Float64Array[] {
    const width = Math.max(1, Math.floor(values.length / this.#tokens)); // a backend that only counts memory has one value
    let from = 0;
    return this.#o.lengths.map((length) => {
      from += length;
      return meanMagnitudes(values, width, from - length, length);
    });
  }

  [Symbol.dispose](): void {
    for (const norms of [...this.#unitNorms.values(), ...this.#columns.values()]) norms[Symbol.dispose]();
  }
}

const streamsOf = ({ activation, preactivation }: LayerUnits): readonly (string | undefined)[] => [
  activation,
  preactivation,
];
