/**
 * Runs one checkpoint natively, on its own stored tensors. No layer stays in memory: a stored matrix is read in bands,
 * every run of this checkpoint uses a band, then the band is dropped. This file does not import layouts.
 */
import { add, linear, mix } from "../../kernels/index.ts";
import type { Region } from "../../kernels/kernel.ts";
import { type Tensor, tensorKey } from "../core/checkpoint.ts";
import { countOf, widthOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import type { Forward, KernelStage, Native, OutputRows, Stage } from "../families/forward.ts";
import type { Dims, Layer } from "../families/structure.ts";
import type { DispatchedRows } from "./expert-rows.ts";
import {
  type DescribedProduct,
  describeProduct,
  groupByOutput,
  type MatmulTask,
  matmulTask,
  matmulTasksOfRows,
  matmulTasksWithin,
  unpairHeads,
  unpairProducts,
} from "./products.ts";
import { positionTable, putFloats, runBySequence } from "./sequences.ts";
import { type BlockNames, TensorLookup, type TensorUse } from "./tensor-lookup.ts";
import {
  type BandData,
  type MatrixRows,
  type WeightChoice,
  Weights,
  type WeightsOptions,
} from "./weight-bands.ts";

/** The streams of one run by name: those that a stage reads and those that it writes. */
export interface StreamSet {
  readonly inputs: Map<string, Region>;
  readonly outputs: Map<string, Region>;
  /** which versions of the weights this run uses */
  readonly weights: WeightChoice;
  /** rows of the experts that this run chose; absent: those that `run` gets for all runs */
  readonly expertRows?: DispatchedRows | undefined;
}

/** Receives each band that is multiplied, in order and meanwhile; the band stays valid until the call ends. */
export type BandObserver = (task: MatmulTask, band: BandData) => Promise<void>;

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
  #parameters = new Map<string, Region>();

  constructor(options: RunnerOptions) {
    this.#o = options;
    const { native, dims, forward, tensors } = options;
    this.#stored = new TensorLookup(native, dims, forward.experts(dims), tensors.values());
    this.#weights = new Weights(options);
    this.#widths = forward.streams(dims);
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
        return this.#multiply(this.#tasks(stage, place, sets), stage.from, sets, place, observe);
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
    return this.#tasks(stage, place, [{ expertRows }]).map((task) => this.#describe(task, 1, stage.from));
  }

  /** The products that make the logits of token ids [lo, hi). */
  logitsProducts(from: string, lo: number, hi: number): readonly DescribedProduct[] {
    return this.#logitsTasks(from, lo, hi, this.head).map((task) =>
      this.#describe(task, this.#logitsFactor, from),
    );
  }

  /** Reads stored rows as `Weights.band` does, beside a run of another checkpoint. */
  band(rows: MatrixRows, turn: number): Promise<BandData> {
    return this.#weights.band(rows, turn);
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
    const blocks = sets.map(({ inputs, weights }, i) => ({
      ...{ inputs, weights },
      outputs: new Map([["logits", outputs[i]!]]),
    }));
    const products = this.#logitsTasks(from, lo, hi, place);
    const factor = this.#logitsFactor;
    const choices = sets.map(({ weights }) => weights);
    await this.#weights.eachBand(products, place.replacements === undefined, choices, (product, band) =>
      afterBoth(
        async () => {
          for (const block of blocks) {
            for (const output of product.outputs)
              await this.#multiplyRows(band, product, output, from, block, hi - lo, factor);
          }
        },
        () => observe?.(product, band),
      ),
    );
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

  /** The products of a stage, in the order in which they are computed. @throws TENSOR_MISSING */
  #tasks(
    stage: Extract<Stage, { readonly op: "linear" | "experts" }>,
    place: BlockNames,
    sets: readonly Pick<StreamSet, "expertRows">[],
  ): readonly MatmulTask[] {
    const streams = [stage.to].flat();
    const tasksOf = (expert: number | null) => {
      const parts = this.#stored.parts(place, streams, expert ?? undefined);
      this.#refuseIncomplete(parts, stage.from, streams, place);
      return parts.map((part) => matmulTask(part, expert));
    };
    const tasks = stage.op === "linear" ? tasksOf(null) : chosenExperts(sets).flatMap(tasksOf);
    return place.rows === undefined ? tasks : matmulTasksOfRows(tasks, place.rows);
  }

  #logitsTasks(from: string, lo: number, hi: number, place: BlockNames): readonly MatmulTask[] {
    const parts = this.#stored.parts(place, ["logits"]);
    this.#refuseIncomplete(parts, from, ["logits"], place);
    const tasks = matmulTasksWithin(parts, lo, hi);
    return place.rows === undefined ? tasks : matmulTasksOfRows(tasks, place.rows);
  }

  get #logitsFactor(): number {
    const { forward, dims } = this.#o;
    return forward.logitsFactor?.(dims) ?? 1;
  }

  #describe(task: MatmulTask, factor: number, from: string): DescribedProduct {
    return describeProduct(task, this.#weights.scaleOf(task.tensor) * factor, from, this.#widths);
  }

  /** @throws TENSOR_MISSING where some elements of the streams are not a product with the whole input */
  #refuseIncomplete(
    parts: readonly TensorUse[],
    from: string,
    streams: readonly string[],
    place: BlockNames,
  ): void {
    for (const stream of streams) {
      let area = 0;
      for (const { tensor, outputs } of parts) {
        for (const { to, count } of outputs) if (to === stream) area += count * tensor.shape.at(-1)!;
      }
      if (area !== this.#widths[stream]! * this.#widths[from]!) throw missingPart(stream, place.prefix);
    }
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

  /** Multiplies. Ranks of a row-parallel matrix (split by columns) make partial sums, added here in the order of ranks. */
  async #multiply(
    products: readonly MatmulTask[],
    from: string,
    sets: readonly StreamSet[],
    { replacements }: BlockNames,
    observe?: BandObserver,
  ): Promise<void> {
    const { backend, tokens } = this.#o;
    const dispatched = products.some(({ expert }) => expert !== null);
    const rows = dispatched ? sets[0]!.expertRows!.rows : tokens; // the same in all runs
    for (const [turn, round] of groupByOutput(products).entries()) {
      const names = [...new Set(round.flatMap(({ outputs }) => outputs.map(({ to }) => to)))];
      const partial = (name: string) => backend.allocate(4 * rows * this.#widths[name]!);
      const targets = sets.map((set) =>
        turn === 0 ? set : { ...set, outputs: new Map(names.map((name) => [name, partial(name)])) },
      );
      const choices = sets.map(({ weights }) => weights);
      await this.#weights.eachBand(round, replacements === undefined, choices, (product, band) =>
        afterBoth(
          async () => {
            for (const set of targets) {
              for (const output of product.outputs)
                await this.#multiplyRows(band, product, output, from, set, this.#widths[output.to]!);
            }
          },
          () => observe?.(product, band),
        ),
      );
      for (const { outputs: regions } of targets)
        await unpairProducts(backend, round, regions, rows, this.#widths);
      if (turn === 0) continue;
      for (const [i, { outputs }] of targets.entries()) {
        for (const [name, region] of outputs) {
          const sum = sets[i]!.outputs.get(name)!;
          await backend.run(add, { count: rows * this.#widths[name]! }, [sum, region], sum);
          backend.release(region);
        }
      }
    }
  }

  /** Multiplies the input stream by those rows of a band that produce one output stream, and by `factor`. */
  async #multiplyRows(
    band: BandData,
    { tensor, inputOffset, expert }: MatmulTask,
    output: OutputRows,
    from: string,
    { inputs, outputs, weights, expertRows }: StreamSet,
    outWidth: number,
    factor = 1,
  ): Promise<void> {
    const lo = Math.max(band.lo, output.from);
    const hi = Math.min(band.hi, output.from + output.count);
    const all = { from: 0, count: this.#o.tokens };
    const rows = expert === null ? all : expertRows!.experts.find((run) => run.expert === expert);
    if (lo >= hi || rows === undefined) return;
    const { from: first, count } = rows;
    const { region, dtype, scale, areValues } = band.version(weights);
    const { times = 1 } = areValues ? {} : output;
    const cols = tensor.shape.at(-1)!;
    const inWidth = this.#widths[from]!;
    const p = {
      tokens: count,
      rows: hi - lo,
      cols,
      dtype,
      scale: Math.fround((scale * factor) / times),
      firstRow: lo - band.lo,
      inWidth,
      inFrom: first * inWidth + inputOffset,
      outWidth,
      outFrom: first * outWidth + output.at + lo - output.from,
    };
    await this.#o.backend.run(linear, p, [region, inputs.get(from)!], outputs.get(output.to)!);
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

/** Waits for both, also if the first fails: both use the same band. */
async function afterBoth(
  multiply: () => Promise<void>,
  observe: () => Promise<void> | undefined,
): Promise<void> {
  const [multiplied, observed] = await Promise.allSettled([multiply(), observe()]);
  for (const ended of [multiplied, observed]) if (ended.status === "rejected") throw ended.reason;
}

/** The experts that any run chose, ascending. */
function chosenExperts(sets: readonly Pick<StreamSet, "expertRows">[]): readonly number[] {
  const chosen = sets.flatMap(({ expertRows }) => expertRows!.experts.map(({ expert }) => expert));
  return [...new Set(chosen)].sort((a, b) => a - b);
}

function missingPart(part: string, where: string): IsologitError {
  const message = `the checkpoint lacks a part of ${part} that the forward pass needs`;
  return new IsologitError("TENSOR_MISSING", message, { tensor: where });
}

/** Converts positions in rows to positions in elements, `inRow` elements per row. */
function elementsOf(
  { at, from, count }: OutputRows,
  inRow: number,
): Pick<OutputRows, "at" | "from" | "count"> {
  return { at: at * inRow, from: from * inRow, count: count * inRow };
}
