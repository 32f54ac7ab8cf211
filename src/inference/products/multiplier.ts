/**
 * Multiplies streams by the stored matrices of one checkpoint, band by band: every run uses a band, then the band is dropped.
 * This file does not import layouts.
 */
import { add, linear } from "../../../kernels/index.ts";
import type { Backend, Region } from "../../../kernels/kernel.ts";
import type { OutputRows, Stage } from "../../families/forward.ts";
import type { DispatchedRows } from "../expert-rows.ts";
import { type BlockNames, missingPart, type TensorLookup, type TensorUse } from "../tensor-lookup.ts";
import type { BandData, WeightChoice, Weights } from "../weight-bands.ts";
import {
  type DescribedProduct,
  describeProduct,
  groupByOutput,
  type MatmulTask,
  matmulTask,
  matmulTasksOfRows,
  matmulTasksWithin,
  unpairProducts,
} from "./tasks.ts";

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

/** A stage that multiplies. */
type ProductStage = Extract<Stage, { readonly op: "linear" | "experts" }>;

interface MultiplierOptions {
  readonly backend: Backend;
  readonly stored: TensorLookup;
  readonly weights: Weights;
  /** elements in one row of each stream */
  readonly widths: Readonly<Record<string, number>>;
  readonly tokens: number;
  /** what the logits are multiplied by */
  readonly logitsFactor: number;
}

/** Which products are computed, and where they go. */
interface Multiplication {
  readonly from: string;
  readonly sets: readonly StreamSet[];
  readonly place: BlockNames;
  /** elements in one row of an output */
  readonly widthOf: (stream: string) => number;
  readonly factor: number;
  readonly observe: BandObserver | undefined;
}

/** The products of one checkpoint. */
export class Multiplier {
  readonly #o: MultiplierOptions;

  constructor(options: MultiplierOptions) {
    this.#o = options;
  }

  /**
   * The products of a stage, in the order in which they are computed.
   *
   * @throws TENSOR_MISSING where some elements of the outputs are not a product with the whole input
   */
  tasks(
    stage: ProductStage,
    place: BlockNames,
    sets: readonly Pick<StreamSet, "expertRows">[],
  ): readonly MatmulTask[] {
    const streams = [stage.to].flat();
    const tasksOf = (expert: number | null) => {
      const parts = this.#o.stored.parts(place, streams, expert ?? undefined);
      this.#refuseIncomplete(parts, stage.from, streams, place);
      return parts.map((part) => matmulTask(part, expert));
    };
    return wanted(stage.op === "linear" ? tasksOf(null) : chosenExperts(sets).flatMap(tasksOf), place);
  }

  /** The products that make the logits of token ids [lo, hi). @throws as `tasks` */
  logitsTasks(from: string, lo: number, hi: number, place: BlockNames): readonly MatmulTask[] {
    const parts = this.#o.stored.parts(place, ["logits"]);
    this.#refuseIncomplete(parts, from, ["logits"], place);
    return wanted(matmulTasksWithin(parts, lo, hi), place);
  }

  /** @param factor what the results are multiplied by */
  describe(tasks: readonly MatmulTask[], from: string, factor = 1): readonly DescribedProduct[] {
    return tasks.map((task) => describeProduct(task, factor, from, this.#o.widths));
  }

  /** Computes a stage. Ranks of a row-parallel matrix (split by columns) make partial sums, added here in the order of ranks. */
  async run(
    stage: ProductStage,
    place: BlockNames,
    sets: readonly StreamSet[],
    observe?: BandObserver,
  ): Promise<void> {
    const { backend, tokens, widths } = this.#o;
    const tasks = this.tasks(stage, place, sets);
    const dispatched = tasks.some(({ expert }) => expert !== null);
    const rows = dispatched ? sets[0]!.expertRows!.rows : tokens; // the same in all runs
    const how = { from: stage.from, place, widthOf: (stream: string) => widths[stream]!, factor: 1, observe };
    for (const [turn, round] of groupByOutput(tasks).entries()) {
      const names = [...new Set(round.flatMap(({ outputs }) => outputs.map(({ to }) => to)))];
      const partial = (name: string) => backend.allocate(4 * rows * widths[name]!);
      const targets = sets.map((set) =>
        turn === 0 ? set : { ...set, outputs: new Map(names.map((name) => [name, partial(name)])) },
      );
      await this.#multiply(round, { ...how, sets: targets });
      for (const { outputs: regions } of targets) await unpairProducts(backend, round, regions, rows, widths);
      if (turn === 0) continue;
      for (const [i, { outputs }] of targets.entries()) {
        for (const [name, region] of outputs) {
          const sum = sets[i]!.outputs.get(name)!;
          await backend.run(add, { count: rows * widths[name]! }, [sum, region], sum);
          backend.release(region);
        }
      }
    }
  }

  /** Computes the logits of token ids [lo, hi): for each set, one block [tokens, hi - lo] F32 in `outputs`. */
  async logits(
    from: string,
    lo: number,
    hi: number,
    sets: readonly StreamSet[],
    outputs: readonly Region[],
    place: BlockNames,
    observe: BandObserver | undefined,
  ): Promise<void> {
    const blocks = sets.map(({ inputs, weights }, i) => ({
      ...{ inputs, weights },
      outputs: new Map([["logits", outputs[i]!]]),
    }));
    const tasks = this.logitsTasks(from, lo, hi, place);
    const factor = this.#o.logitsFactor;
    await this.#multiply(tasks, { from, place, sets: blocks, widthOf: () => hi - lo, factor, observe });
  }

  async #multiply(tasks: readonly MatmulTask[], how: Multiplication): Promise<void> {
    const { sets, place, observe } = how;
    const choices = sets.map(({ weights }) => weights);
    await this.#o.weights.eachBand(tasks, place.replacements === undefined, choices, async (task, band) => {
      const multiply = async () => {
        for (const set of sets) {
          for (const output of task.outputs) await this.#multiplyRows(band, task, output, set, how);
        }
      };
      // both use the band: neither may still run when the other has failed
      const ends = await Promise.allSettled([multiply(), observe?.(task, band)]);
      for (const end of ends) if (end.status === "rejected") throw end.reason;
    });
  }

  /** Multiplies the input stream by those rows of a band that produce one output stream, and by `factor`. */
  async #multiplyRows(
    band: BandData,
    { tensor, inputOffset, expert }: MatmulTask,
    output: OutputRows,
    { inputs, outputs, weights, expertRows }: StreamSet,
    { from, factor, widthOf }: Multiplication,
  ): Promise<void> {
    const { backend, tokens, widths } = this.#o;
    const lo = Math.max(band.lo, output.from);
    const hi = Math.min(band.hi, output.from + output.count);
    const all = { from: 0, count: tokens };
    const rows = expert === null ? all : expertRows!.experts.find((run) => run.expert === expert);
    if (lo >= hi || rows === undefined) return;
    const { from: first, count } = rows;
    const { region, dtype, scale, areValues } = band.version(weights);
    const { times = 1 } = areValues ? {} : output;
    const [inWidth, outWidth] = [widths[from]!, widthOf(output.to)];
    const p = {
      tokens: count,
      rows: hi - lo,
      cols: tensor.shape.at(-1)!,
      dtype,
      scale: Math.fround((scale * factor) / times),
      firstRow: lo - band.lo,
      inWidth,
      inFrom: first * inWidth + inputOffset,
      outWidth,
      outFrom: first * outWidth + output.at + lo - output.from,
    };
    await backend.run(linear, p, [region, inputs.get(from)!], outputs.get(output.to)!);
  }

  /** @throws TENSOR_MISSING where some elements of the streams are not a product with the whole input */
  #refuseIncomplete(
    parts: readonly TensorUse[],
    from: string,
    streams: readonly string[],
    place: BlockNames,
  ): void {
    const { widths } = this.#o;
    for (const stream of streams) {
      let area = 0;
      for (const { tensor, outputs } of parts) {
        for (const { to, count } of outputs) if (to === stream) area += count * tensor.shape.at(-1)!;
      }
      if (area !== widths[stream]! * widths[from]!) throw missingPart(stream, place.prefix);
    }
  }
}

/** The products of the rows that a place asks for; all if it names none. */
const wanted = (tasks: readonly MatmulTask[], { rows }: BlockNames): readonly MatmulTask[] =>
  rows === undefined ? tasks : matmulTasksOfRows(tasks, rows);

/** The experts that any run chose, ascending. */
function chosenExperts(sets: readonly Pick<StreamSet, "expertRows">[]): readonly number[] {
  const chosen = sets.flatMap(({ expertRows }) => expertRows!.experts.map(({ expert }) => expert));
  return [...new Set(chosen)].sort((a, b) => a - b);
}
