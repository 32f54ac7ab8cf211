/**
 * Positive controls: deliberate faults that the comparison must detect; a check that misses one makes the verdict
 * `unproven`. The first layer of each kind runs again in the destination, on the inputs of `recastSource`, with two blocks
 * of a stored tensor exchanged when they are read: heads, groups, rows or whole parts. The distance at the door must then
 * exceed the wiring limit. This file makes the faults for each kind of stage; trials.ts runs them and records the outcomes.
 */
import type { Backend, Region } from "../../../kernels/kernel.ts";
import { tensorKey } from "../../core/checkpoint.ts";
import { relL2 } from "../../core/distance.ts";
import { countOf, sameShape } from "../../core/dtype.ts";
import type { Forward, KernelStage, OutputRows, Stage } from "../../families/forward.ts";
import type { Dims } from "../../families/structure.ts";
import { Streams, stageStreams } from "../../inference/activations.ts";
import type { DispatchedRows, ExpertRows } from "../../inference/expert-rows.ts";
import type { ModelRunner } from "../../inference/runner.ts";
import { putFloats } from "../../inference/sequences.ts";
import type { BlockNames, TensorUse } from "../../inference/tensor-lookup.ts";
import {
  ATTEMPTS,
  type Block,
  blockColumns,
  blocksOf,
  distance,
  type Exchange,
  fewChangedRows,
  groupByStream,
  mostUnlike,
  neighbourTargets,
  partTargets,
} from "./swaps.ts";
import {
  type Control,
  type ControlRun,
  type ControlSite,
  ControlTrials,
  type TrialsState,
} from "./trials.ts";

interface ControlsOptions {
  readonly backend: Backend;
  readonly forward: Forward;
  readonly dims: Dims;
  readonly ids: readonly number[];
  /** runner of the destination */
  readonly runner: ModelRunner;
  /** number of elements of a stream */
  readonly lengthOf: (stream: string) => number;
}

export class Controls {
  readonly #trials: ControlTrials;
  readonly #o: ControlsOptions;
  readonly #widths: Readonly<Record<string, number>>;
  readonly #blocks: ReturnType<Forward["blocks"]>;

  constructor(options: ControlsOptions) {
    this.#o = options;
    this.#widths = options.forward.streams(options.dims);
    this.#blocks = options.forward.blocks(options.dims);
    this.#trials = new ControlTrials(options.runner);
  }

  get results(): readonly Control[] {
    return this.#trials.results;
  }

  get state(): TrialsState {
    return this.#trials.state;
  }

  restore(state: TrialsState): void {
    this.#trials.restore(state);
  }

  /** Whether the controls of a stage must run: they have not run yet, or some were void in every layer so far. */
  wants(slot: string): boolean {
    return this.#trials.wants(slot);
  }

  /** Exchanges rows of the token table. `residual` is the correct embedding, [tokens, hidden]. */
  async embed(site: ControlSite, residual: Region): Promise<void> {
    const { backend, ids, runner } = this.#o;
    const tables = runner.tables.flatMap(({ tensor, outputs }) =>
      outputs.map((output) => ({ tensor, ...output })),
    );
    const partOf = (id: number) => tables.find(({ at, count }) => id >= at && id < at + count)!;
    const expected = Float32Array.from(await this.#view(residual, "residual"));
    const width = this.#widths.residual!;
    const row = (t: number) => expected.subarray(t * width, (t + 1) * width);
    const rows = [...new Map(ids.map((id, t) => [id, t]))];
    const pairs = rows.slice(1).map(([b, u], i) => {
      const [a, t] = rows[i]!;
      return { a, b, unlike: distance(row(t), row(u)) };
    });
    // a single token id is exchanged with its neighbour in the table
    if (pairs.length === 0) pairs.push({ a: ids[0]!, b: ids[0]! === 0 ? 1 : ids[0]! - 1, unlike: 0 });
    const within = pairs.filter(({ a, b }) => partOf(a) === partOf(b));
    const attempts = mostUnlike(within).map(({ a, b }) => {
      const { tensor, at, from } = partOf(a);
      const exchange = { axis: 0 as const, a: from + a - at, b: from + b - at, count: 1 };
      return {
        mutation: `words ${a} and ${b} of ${tensorKey(tensor)} exchanged`,
        swaps: [{ of: tensor, exchange }],
      };
    });
    const region = backend.allocate(residual.bytes);
    await this.#trials.run(site, false, [{ door: "residual", attempts, needs: [] }], {
      all: async (replacements) => {
        await runner.embed(ids, "stored", region, replacements);
        return async () => relL2(expected, await this.#view(region, "residual"));
      },
    });
    backend.release(region);
  }

  /**
   * Exchanges blocks of every stored tensor that a stage uses.
   *
   * @param streams inputs of the stage, and its correct outputs
   */
  async stage(
    site: ControlSite,
    stage: Stage,
    names: BlockNames,
    streams: Streams,
    expertRows?: ExpertRows,
  ): Promise<void> {
    const made = new Streams(this.#o.backend, this.#o.lengthOf);
    made.make(stageStreams(stage).makes);
    this.#trials.startStage();
    switch (stage.op) {
      case "kernel":
        for (const name of stage.parameters) await this.#vector(site, stage, name, names, streams, made);
        break;
      case "linear":
        for (const part of this.#o.runner.parts(names, stage.to)) {
          await this.#matrix(site, stage, part, names, streams, made);
        }
        break;
      case "experts":
        await this.#experts(site, stage, names, streams, made, expertRows!);
        break;
      case "dispatch":
      case "combine":
      case "concat":
        break; // these stages use no stored tensor
      default:
        stage satisfies never;
    }
    made.releaseAll();
    this.#trials.finishStage(site.slot);
  }

  /** Exchanges rows of the head among token ids [0, words); `expected` are their correct logits, [tokens, words]. */
  async logits(
    site: ControlSite,
    from: string,
    words: number,
    streams: Streams,
    expected: Float32Array,
  ): Promise<void> {
    const { backend, ids, runner } = this.#o;
    const correct = Float32Array.from(expected);
    const region = backend.allocate(4 * ids.length * words);
    for (const { tensor, outputs } of runner.parts(runner.head, ["logits"])) {
      const blocks = outputs
        .filter(({ at }) => at < words)
        .flatMap((output) => blocksOf({ ...output, count: Math.min(output.count, words - output.at) }, 1));
      const attempts = neighbourTargets(tensor, blocks, 0, "row", "logits", blockColumns(correct, words));
      const target = { door: "logits", attempts, needs: [from] };
      const run = async (changed: Pick<BlockNames, "replacements" | "rows">) => {
        await putFloats(backend, region, correct);
        const place = { ...runner.head, ...changed };
        await runner.logits(from, 0, words, [streams.set()], [region], { place });
        return async () => relL2(correct, await backend.view(region, ids.length * words));
      };
      await this.#trials.run(site, false, [target], {
        all: (replacements) => run({ replacements }),
        few: (replacements, swaps) => run({ replacements, rows: fewChangedRows(swaps, outputs) }),
      });
    }
    backend.release(region);
  }

  /** Exchanges rows (heads, groups or single rows of each stream), parts of equal size, and blocks of input columns. */
  async #matrix(
    site: ControlSite,
    stage: Stage & { op: "linear" },
    { tensor, outputs, inputOffset }: TensorUse,
    names: BlockNames,
    streams: Streams,
    made: Streams,
  ): Promise<void> {
    const doors = groupByStream(outputs);
    const expected = new Map<string, Float32Array>();
    for (const door of doors.keys()) {
      expected.set(door, Float32Array.from(await this.#view(streams.regions.get(door)!, door)));
    }
    // The stage is limited to these doors, so that only their weights are read again.
    const alone = { ...stage, to: [...doors.keys()] };
    const runChanged = async (changed: Pick<BlockNames, "replacements" | "rows">) => {
      for (const [door, values] of expected) await made.put(door, values);
      await this.#o.runner.run(alone, { ...names, ...changed }, [made.set("stored", streams)]);
      return async (door: string) =>
        relL2(expected.get(door)!, await this.#view(made.regions.get(door)!, door));
    };
    const run: ControlRun = {
      all: (replacements) => runChanged({ replacements }),
      few: (replacements, swaps) => runChanged({ replacements, rows: fewChangedRows(swaps, outputs) }),
    };
    const needs = [stage.from];
    const rows = [...doors].map(([door, rowsOfDoor]) => {
      const { of, blocks } = this.#split(door, rowsOfDoor);
      const values = blockColumns(expected.get(door)!, this.#widths[door]!);
      return { door, attempts: neighbourTargets(tensor, blocks, 0, of, door, values), needs };
    });
    await this.#trials.run(site, true, rows, run);
    await this.#trials.run(
      site,
      true,
      partTargets(tensor, doors).map((part) => ({ ...part, needs })),
      run,
    );
    const inputBlocks = this.#blocks[stage.from];
    if (inputBlocks === undefined) return;
    const input = await this.#view(streams.regions.get(stage.from)!, stage.from);
    const blocks = blocksOf({ at: inputOffset, from: 0, count: tensor.shape.at(-1)! }, inputBlocks.count);
    const values = blockColumns(input, this.#widths[stage.from]!);
    const attempts = neighbourTargets(tensor, blocks, 1, inputBlocks.of, stage.from, values);
    for (const door of doors.keys()) await this.#trials.run(site, true, [{ door, attempts, needs }], run);
  }

  /** Exchanges rows of one expert, and two whole experts; only the weights of these experts are read. */
  async #experts(
    site: ControlSite,
    stage: Stage & { op: "experts" },
    names: BlockNames,
    streams: Streams,
    made: Streams,
    expertRows: ExpertRows,
  ): Promise<void> {
    const { runner } = this.#o;
    const { to } = stage;
    const needs = [stage.from];
    const width = this.#widths[to]!;
    const expected = Float32Array.from(await this.#view(streams.regions.get(to)!, to));
    const run = (dispatched: DispatchedRows): ControlRun => ({
      all: async (replacements) => {
        await runner.run(stage, { ...names, replacements }, [made.set("stored", streams)], dispatched);
        return async () => {
          const found = await this.#view(made.regions.get(to)!, to);
          const distances = dispatched.experts.map(({ from, count }) => {
            const [left, right] = [expected, found].map((all) =>
              all.subarray(from * width, (from + count) * width),
            );
            return relL2(left!, right!);
          });
          return Math.max(...distances);
        };
      },
    });
    const few = expertRows.experts.slice(0, ATTEMPTS + 1);
    const [first] = few;
    for (const { tensor, outputs } of runner.parts(names, [to], first!.expert)) {
      const { of, blocks } = this.#split(to, outputs);
      const { from, count } = first!;
      const values = blockColumns(expected.subarray(from * width, (from + count) * width), width);
      const attempts = neighbourTargets(tensor, blocks, 0, of, to, values);
      await this.#trials.run(
        site,
        true,
        [{ door: `${to}.${first!.expert}`, attempts, needs }],
        run(expertRows.only([first!.expert])),
      );
    }
    const attempts = few.slice(1).flatMap(({ expert }, i) => {
      const before = few[i]!.expert;
      const [left, right] = [before, expert].map((number) => runner.parts(names, [to], number));
      const swaps = left!.flatMap(({ tensor: of, outputs }, n): readonly Exchange[] => {
        const other = right![n]?.tensor;
        if (other === of) {
          // both experts are in one stacked tensor
          const [first, second] = [outputs[0]!, right![n]!.outputs[0]!];
          return [{ of, exchange: { axis: 0, a: first.from, b: second.from, count: first.count } }];
        }
        return other !== undefined && sameShape(of.shape, other.shape) && of.dtype === other.dtype
          ? [{ of, with: other }]
          : [];
      });
      return swaps.length === 0 ? [] : [{ mutation: `experts ${before} and ${expert} exchanged`, swaps }];
    });
    const both = [{ door: to, attempts, needs }];
    await this.#trials.run(site, true, both, run(expertRows.only(few.map(({ expert }) => expert))));
  }

  /** Exchanges blocks of a vector parameter of a kernel. */
  async #vector(
    site: ControlSite,
    stage: KernelStage,
    name: string,
    names: BlockNames,
    streams: Streams,
    made: Streams,
  ): Promise<void> {
    const { backend, runner } = this.#o;
    const expected = Float32Array.from(await this.#view(streams.regions.get(stage.to)!, stage.to));
    const needs = stage.needs?.[name] ?? [];
    const run: ControlRun = {
      all: async (replacements) => {
        await runner.run(stage, { ...names, replacements }, [made.set("stored", streams)]);
        return async () => relL2(expected, await this.#view(made.regions.get(stage.to)!, stage.to));
      },
    };
    for (const { tensor, outputs } of runner.parts(names, [name])) {
      const perRow = countOf(tensor.shape) / tensor.shape[0]!;
      const count = perRow * Math.max(...outputs.map((output) => output.at + output.count));
      const vector = Float32Array.from(
        await backend.view(await runner.parameter(name, names, "stored"), count),
      );
      const { of, blocks } = this.#split(name, outputs);
      const values = ({ at, count: size }: Block) => vector.subarray(at * perRow, (at + size) * perRow);
      const attempts = neighbourTargets(tensor, blocks, 0, of, name, values);
      await this.#trials.run(site, false, [{ door: stage.to, attempts, needs }], run);
      // a tensor may also hold vectors of other stages; here parts of this stage are exchanged with their neighbours
      const all = runner.parts(names).find((part) => part.tensor === tensor)!.outputs;
      for (const { attempts: swaps, streams: both } of partTargets(tensor, groupByStream(all))) {
        if (!both.includes(name)) continue;
        await this.#trials.run(site, false, [{ door: stage.to, attempts: swaps, needs }], run);
      }
    }
  }

  /** Splits rows into the blocks that the family declares for a stream or parameter; into single rows where there is one block. */
  #split(name: string, outputs: readonly OutputRows[]): { of: string; blocks: readonly Block[] } {
    const { of, count } = this.#blocks[name] ?? { of: "row", count: 1 };
    const blocks = outputs.flatMap((output) => blocksOf(output, count));
    return blocks.length > 1
      ? { of, blocks }
      : { of: "row", blocks: outputs.flatMap((output) => blocksOf(output, 1)) };
  }

  #view(region: Region, stream: string): Promise<Float32Array> {
    return this.#o.backend.view(region, this.#o.lengthOf(stream));
  }
}
