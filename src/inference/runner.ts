/**
 * Runs one checkpoint natively, on its own stored tensors. No layer stays in memory: a stored matrix is read in bands,
 * every run of this checkpoint uses a band, then the band is dropped. This file does not import layouts.
 */
import { mix } from "../../kernels/index.ts";
import type { Region } from "../../kernels/kernel.ts";
import { type Tensor, tensorKey } from "../core/checkpoint.ts";
import { countOf, widthOf } from "../core/dtype.ts";
import type { Forward, KernelStage, Native, OutputRows, Stage } from "../families/forward.ts";
import type { Dims, Layer } from "../families/structure.ts";
import type { DispatchedRows } from "./expert-rows.ts";
import { type BandObserver, Multiplier, type StreamSet } from "./products/multiplier.ts";
import { type DescribedProduct, unpairHeads } from "./products/tasks.ts";
import { positionTable, putFloats, runBySequence } from "./sequences.ts";
import { type BlockNames, missingPart, TensorLookup, type TensorUse } from "./tensor-lookup.ts";
import {
  type BandData,
  type MatrixRows,
  type WeightChoice,
  Weights,
  type WeightsOptions,
} from "./weight-bands.ts";

interface RunnerOptions extends WeightsOptions {
  readonly forward: Forward;
  readonly native: Native;
  readonly dims: Dims;
  readonly tokens: number;
  /** lengths of sequences that follow each other and do not see each other; default: one sequence of all tokens */
  readonly sequences?: readonly number[] | undefined;
}

/** Runs stages of one checkpoint; several runs share one reading of the weights. */
export class ModelRunner {
  readonly #o: RunnerOptions;
  readonly #stored: TensorLookup;
  readonly #weights: Weights;
  readonly #widths: Readonly<Record<string, number>>;
  readonly #multiplier: Multiplier;
  readonly #logitsFactor: number;
  #parameters = new Map<string, Region>();

  constructor(options: RunnerOptions) {
    this.#o = options;
    const { native, dims, forward, tensors } = options;
    this.#stored = new TensorLookup(native, dims, forward.experts(dims), tensors.values());
    this.#weights = new Weights(options);
    this.#widths = forward.streams(dims);
    this.#logitsFactor = forward.logitsFactor?.(dims) ?? 1;
    this.#multiplier = new Multiplier({
      ...{ backend: options.backend, stored: this.#stored, weights: this.#weights, widths: this.#widths },
      ...{ tokens: options.tokens, logitsFactor: this.#logitsFactor },
    });
  }

  /** The stored tensors of a layer. */
  layer(layer: Layer): BlockNames {
    return this.#stored.layer(layer);
  }

  /** The stored tensors of the first or last part of a prediction step. */
  step(end: "mtpStart" | "mtpEnd", layer: Layer): BlockNames {
    return this.#stored.step(end, layer);
  }

  /** The stored tensors of the embedding. */
  get embedding(): BlockNames {
    return this.#stored.outside("embedding");
  }

  /** The stored tensors of the head. */
  get head(): BlockNames {
    return this.#stored.outside("head");
  }

  /** The token table, [vocab, hidden]: one entry for each tensor parallel rank. */
  get tables(): readonly TensorUse[] {
    return this.#stored.parts(this.embedding, ["vocabulary"]);
  }

  /** The stored tensors of a block that make any of `streams` (default: all), of one expert in a layer of experts. */
  parts(place: BlockNames, streams?: readonly string[], expert?: number): readonly TensorUse[] {
    return this.#stored.parts(place, streams, expert);
  }

  /** Keys of the stored tensors from which a stage makes a stream. */
  makers(stage: Stage, place: BlockNames, stream: string, expert?: number): readonly string[] {
    const multiplies = stage.op === "linear" || stage.op === "experts";
    const drawn = stage.op === "kernel" ? stage.parameters : multiplies ? [stream] : [];
    return this.#stored.parts(place, drawn, expert).map(({ tensor }) => tensorKey(tensor));
  }

  /**
   * Writes the token table's rows for `ids` to `output`: [tokens, hidden] F32.
   *
   * @param replacements tensors to read in place of the stored tensors of these keys
   * @throws TENSOR_MISSING where no stored tensor has the row of an id
   */
  async embed(
    ids: readonly number[],
    weights: WeightChoice,
    output: Region,
    replacements: ReadonlyMap<string, Tensor> = new Map(),
  ): Promise<void> {
    const parts = this.#stored.parts({ ...this.embedding, replacements }, ["vocabulary"]);
    const rows = parts.flatMap(({ tensor, outputs }) => outputs.map((output) => ({ tensor, ...output })));
    const hidden = parts[0]?.tensor.shape.at(-1) ?? 0;
    await this.#o.backend.upload(output, 4 * ids.length * hidden, async (view) => {
      for (const [t, id] of ids.entries()) {
        const found = rows.find(({ at, count }) => id >= at && id < at + count);
        if (found === undefined) throw missingPart("word", `${id}`);
        const from = (found.from + id - found.at) * hidden;
        view.set(await this.#weights.wide(found.tensor, from, from + hidden, weights, found), 4 * t * hidden);
      }
    });
  }

  /**
   * How a stage computes: the columns at which ranks split its sums, and what of its values is stored. Two checkpoints with equal
   * arithmetic add in the same order and round alike.
   */
  arithmetic(stage: Stage, place: BlockNames): string {
    if (stage.op === "kernel") return formsIn(this.#stored.parts(place, stage.parameters));
    if (stage.op !== "linear" && stage.op !== "experts") return "";
    const parts = this.#stored.parts(place, [stage.to].flat());
    const cuts = [...new Set(parts.map(({ inputOffset }) => inputOffset))].sort((a, b) => a - b);
    return cuts.join() + formsIn(parts);
  }

  /** What of its values the token table stores, as in `arithmetic`. */
  get tableArithmetic(): string {
    return formsIn(this.tables);
  }

  /**
   * Runs one stage for each set, with one reading of the weights.
   *
   * @param expertRows rows of this layer's experts; stages of expert layers need them here or in each set
   * @param observe    receives the bands of a stage that multiplies
   * @throws TENSOR_MISSING where stored tensors do not make every element of the outputs
   */
  async run(
    stage: Stage,
    place: BlockNames,
    runs: readonly StreamSet[],
    expertRows?: DispatchedRows,
    observe?: BandObserver,
  ): Promise<void> {
    const sets = runs.map((set) => (set.expertRows === undefined ? { ...set, expertRows } : set));
    switch (stage.op) {
      case "kernel":
        for (const set of sets) await this.#kernel(stage, place, set);
        return;
      case "linear":
      case "experts":
        return this.#multiplier.run(stage, place, sets, observe);
      case "dispatch":
        for (const { inputs, outputs, expertRows } of sets) {
          const { rows, tokenOf, ones } = expertRows!;
          const p = { rows, sources: this.#o.tokens, terms: 1, width: this.#widths[stage.to]! };
          const operands = [inputs.get(stage.from)!, tokenOf, ones];
          await this.#o.backend.run(mix, p, operands, outputs.get(stage.to)!);
        }
        return;
      case "combine":
        for (const { inputs, outputs, expertRows } of sets) {
          const { rows: sources, perToken: terms, rowOf } = expertRows!;
          const p = { rows: this.#o.tokens, sources, terms, width: this.#widths[stage.to]! };
          const operands = [inputs.get(stage.from)!, rowOf, inputs.get(stage.weights)!];
          await this.#o.backend.run(mix, p, operands, outputs.get(stage.to)!);
        }
        return;
      case "concat":
        for (const set of sets) await this.#concat(stage.from, stage.to, set);
        return;
      default:
        stage satisfies never;
    }
  }

  /**
   * The products of a stage, in the order in which they are computed; none if the stage multiplies nothing.
   *
   * @param expertRows as for `run`
   */
  products(stage: Stage, place: BlockNames, expertRows?: DispatchedRows): readonly DescribedProduct[] {
    if (stage.op !== "linear" && stage.op !== "experts") return [];
    const tasks = this.#multiplier.tasks(stage, place, [{ expertRows }]);
    return this.#multiplier.describe(tasks, stage.from);
  }

  /** The products that make the logits of token ids [lo, hi). */
  logitsProducts(from: string, lo: number, hi: number): readonly DescribedProduct[] {
    const tasks = this.#multiplier.logitsTasks(from, lo, hi, this.head);
    return this.#multiplier.describe(tasks, from, this.#logitsFactor);
  }

  /**
   * Computes the logits of token ids [lo, hi): for each set, one block [tokens, hi - lo] F32 in `outputs`.
   * The caller never computes the whole vocabulary at once: 131,072 ids for 4,096 tokens would need 2 GiB.
   */
  async logits(
    from: string,
    lo: number,
    hi: number,
    sets: readonly StreamSet[],
    outputs: readonly Region[],
    { place = this.head, observe }: { place?: BlockNames; observe?: BandObserver | undefined } = {},
  ): Promise<void> {
    await this.#multiplier.logits(from, lo, hi, sets, outputs, place, observe);
  }

  /** Reads stored rows as `Weights.band` does, beside a run of another checkpoint. */
  band(rows: MatrixRows): Promise<BandData> {
    return this.#weights.band(rows);
  }

  /** Whether `count` elements of `a` from `atA` on equal those of `b` from `atB` on. */
  alike(a: Tensor, atA: number, b: Tensor, atB: number, count: number): Promise<boolean> {
    return this.#weights.alike(a, atA, b, atB, count);
  }

  /** Releases the vectors of a layer. */
  forget(): void {
    for (const region of this.#parameters.values()) this.#o.backend.release(region);
    this.#parameters.clear();
  }

  close(): void {
    this.forget();
    this.#weights.close();
  }

  async #kernel(stage: KernelStage, place: BlockNames, set: StreamSet): Promise<void> {
    const { backend, dims, tokens, forward, sequences = [tokens] } = this.#o;
    const inputs = stage.from.map((name) => set.inputs.get(name)!);
    const parameters: Region[] = [];
    for (const name of stage.parameters) parameters.push(await this.parameter(name, place, set.weights));
    const output = set.outputs.get(stage.to)!;
    if (stage.carry !== undefined && sequences.length > 1) {
      const run = { backend, dims, widths: this.#widths, sequences };
      return await runBySequence(stage, run, inputs, parameters, output);
    }
    const rows = forward.dispatched.includes(stage.to) ? set.expertRows!.rows : tokens;
    const table = await positionTable(stage, { backend, dims, sequences });
    const operands = [...inputs, ...parameters, ...(table === undefined ? [] : [table])];
    await stage.run(backend, dims, rows, operands, output);
    if (table !== undefined) backend.release(table);
  }

  async #concat([left, right]: readonly [string, string], to: string, set: StreamSet): Promise<void> {
    const { backend, tokens } = this.#o;
    const streams = [left, right].map((name) => ({ name, width: this.#widths[name]! }));
    const width = this.#widths[to]!;
    const joined = new Float32Array(tokens * width);
    for (const [i, { name, width: partWidth }] of streams.entries()) {
      const values = await backend.view(set.inputs.get(name)!, tokens * partWidth);
      for (let t = 0; t < tokens; t++) {
        joined.set(values.subarray(t * partWidth, (t + 1) * partWidth), t * width + i * streams[0]!.width);
      }
    }
    await putFloats(backend, set.outputs.get(to)!, joined);
  }

  /** A vector as F32, made from the stored tensors whose rows hold it; it stays allocated until `forget`. */
  async parameter(name: string, place: BlockNames, weights: WeightChoice): Promise<Region> {
    const parts = this.#stored.parts(place, [name]);
    const replaced = parts.some(({ tensor }) => tensor === place.replacements?.get(tensorKey(tensor)));
    const versions = parts.map(({ tensor }) => this.#weights.versionsOf(tensor, weights)).join();
    const key = `${replaced ? "replaced" : versions} ${name}`;
    const known = this.#parameters.get(key);
    if (known !== undefined) {
      if (!replaced) return known;
      this.#o.backend.release(known);
    }
    const pieces = parts.flatMap(({ tensor, outputs, pairsIn }) => {
      const inRow = countOf(tensor.shape) / tensor.shape[0]!;
      return outputs.map((output) => ({
        ...{ tensor, pairsIn, ...output },
        ...elementsOf(output, inRow),
      }));
    });
    const length = pieces.reduce((sum, { count }) => sum + count, 0);
    if (length === 0) throw missingPart(name, place.prefix);
    const region = this.#o.backend.allocate(4 * length);
    await this.#o.backend.upload(region, 4 * length, async (view) => {
      for (const { tensor, at, from, count, pairsIn, ...form } of pieces) {
        const values = await this.#weights.wide(tensor, from, from + count, weights, form);
        if (pairsIn !== undefined)
          unpairHeads(new Float32Array(values.buffer, values.byteOffset, count), pairsIn);
        view.set(values, 4 * at);
        if (weights === "stored" && !replaced) this.#o.advance(count * widthOf(tensor.dtype));
      }
    });
    this.#parameters.set(key, region);
    return region;
  }
}

/** What is stored of the values of these tensors, where it is not the values. */
function formsIn(parts: readonly TensorUse[]): string {
  const forms = parts.flatMap(({ outputs }) => outputs.map(({ times = 1, plus = 0 }) => `${times} ${plus}`));
  return [...new Set(forms)]
    .filter((form) => form !== "1 0")
    .sort()
    .join();
}

/** Converts positions in rows to positions in elements, `inRow` elements per row. */
function elementsOf(
  { at, from, count }: OutputRows,
  inRow: number,
): Pick<OutputRows, "at" | "from" | "count"> {
  return { at: at * inRow, from: from * inRow, count: count * inRow };
}
