/**
 * Positive controls: sabotages that must be seen, so that a green verdict is known to come from open eyes. The first
 * layer of each kind runs once more on the destination's side, on `rounded`'s inputs, with two blocks of one stored
 * tensor exchanged as they are read: heads, groups, rows, whole parts. Its door must then exceed the wiring limit.
 *
 * Blocks are neighbours, and those tried first are the most unlike. A control is void where it cannot show: its blocks
 * are the same bytes, or what it multiplies is all zeros. A void control is tried again in the next layer of its kind,
 * and stays void only when it is void in all of them. What stays green although it could show is a miss, in whichever
 * layer, and makes the verdict `unproven`.
 */
import type { Backend, Region } from "../../../kernels/kernel.ts";
import { type Tensor, tensorKey } from "../../core/checkpoint.ts";
import { relL2 } from "../../core/distance.ts";
import { countOf, sameShape } from "../../core/dtype.ts";
import type { Forward, KernelStage, OutputRows, Stage } from "../../families/forward.ts";
import type { Dims } from "../../families/structure.ts";
import { Streams, stageStreams } from "../../inference/activations.ts";
import type { DispatchedRows, ExpertRows } from "../../inference/expert-rows.ts";
import type { ModelRunner } from "../../inference/runner.ts";
import type { BlockNames, TensorUse } from "../../inference/tensor-lookup.ts";
import {
  ATTEMPTS,
  type Block,
  blockColumns,
  blocksOf,
  type ControlAttempt,
  type ControlTarget,
  distance,
  type Exchange,
  groupByStream,
  mostUnlike,
  neighbourTargets,
  partTargets,
  replacementsFor,
} from "./swaps.ts";

export interface Control {
  readonly layer: number;
  readonly kind: string;
  readonly door: string;
  readonly mutation: string;
  /** null where it cannot show in any layer of the kind */
  readonly caught: boolean | null;
  /** why it cannot show in the layer that is named; absent where it can */
  readonly void?: "equal blocks" | "zero input";
  /** it exchanged blocks of a matrix of a layer: vectors, the token table and the head prove little alone */
  readonly matrix: boolean;
}

export interface ControlsOptions {
  readonly backend: Backend;
  readonly forward: Forward;
  readonly dims: Dims;
  readonly ids: readonly number[];
  /** the destination's */
  readonly side: ModelRunner;
  /** elements of a stream */
  readonly lengthOf: (stream: string) => number;
}

/** Where controls are run, and how far a door may be off there. */
export interface ControlSite {
  readonly layer: number;
  readonly kind: string;
  readonly limit: number;
  /** the same in all layers of a kind: what is void in one is tried again in the next */
  readonly slot: string;
  /** streams that are all zeros, and rightly so */
  readonly dark: ReadonlySet<string>;
}

/** A control with the inputs that it needs: where one of them is all zeros, the control cannot show. */
interface Needing extends ControlTarget {
  readonly needs: readonly string[];
}

/** What became of a control so far. */
interface Slot {
  /** its place among the results */
  readonly at: number;
  /** void so far */
  readonly open: boolean;
}

type Outcome = Pick<Control, "caught" | "void">;
const ZERO_INPUT: Outcome = { caught: null, void: "zero input" };
const EQUAL_BLOCKS: Outcome = { caught: null, void: "equal blocks" };

export class Controls {
  readonly results: Control[] = [];
  readonly #slots = new Map<string, Slot>();
  /** slots of a stage -> whether one of its controls is still void */
  readonly #stages = new Map<string, boolean>();
  /** controls that the present stage has had so far */
  #turn = 0;
  readonly #o: ControlsOptions;
  readonly #widths: Readonly<Record<string, number>>;
  readonly #blocks: ReturnType<Forward["blocks"]>;

  constructor(options: ControlsOptions) {
    this.#o = options;
    this.#widths = options.forward.streams(options.dims);
    this.#blocks = options.forward.blocks(options.dims);
  }

  /** Whether a stage's controls were never run, or some of them were void wherever they were run. */
  wants(slot: string): boolean {
    return this.#stages.get(slot) ?? true;
  }

  /** Sabotages the token table; `residual` is what an honest one gives. */
  async embed(spot: ControlSite, residual: Region): Promise<void> {
    const { backend, ids, side } = this.#o;
    const tables = side.tables.flatMap(({ tensor, outputs }) => outputs.map((feed) => ({ tensor, ...feed })));
    const holds = (id: number) => tables.find(({ at, count }) => id >= at && id < at + count)!;
    const expected = Float32Array.from(await this.#view(residual, "residual"));
    const width = this.#widths.residual!;
    const row = (t: number) => expected.subarray(t * width, (t + 1) * width);
    const rows = [...new Map(ids.map((id, t) => [id, t]))];
    const pairs = rows.slice(1).map(([b, u], i) => {
      const [a, t] = rows[i]!;
      return { a, b, unlike: distance(row(t), row(u)) };
    });
    // one word alone is exchanged with its neighbour in the table
    if (pairs.length === 0) pairs.push({ a: ids[0]!, b: ids[0]! === 0 ? 1 : ids[0]! - 1, unlike: 0 });
    const within = pairs.filter(({ a, b }) => holds(a) === holds(b));
    const attempts = mostUnlike(within).map(({ a, b }) => {
      const { tensor, at, from } = holds(a);
      const exchange = { axis: 0 as const, a: from + a - at, b: from + b - at, count: 1 };
      return {
        mutation: `words ${a} and ${b} of ${tensorKey(tensor)} exchanged`,
        swaps: [{ of: tensor, exchange }],
      };
    });
    const region = backend.allocate(residual.bytes);
    await this.#prove(spot, false, [{ door: "residual", attempts, needs: [] }], async (replacements) => {
      await side.embed(ids, "stored", region, replacements);
      return async () => relL2(expected, await this.#view(region, "residual"));
    });
    backend.release(region);
  }

  /** Sabotages each stored tensor that a stage draws on; `streams` holds what it reads and what it should make. */
  async stage(
    spot: ControlSite,
    stage: Stage,
    place: BlockNames,
    streams: Streams,
    dealing?: ExpertRows,
  ): Promise<void> {
    const made = new Streams(this.#o.backend, this.#o.lengthOf);
    made.make(stageStreams(stage).makes);
    this.#turn = 0;
    switch (stage.op) {
      case "kernel":
        for (const name of stage.parameters) await this.#vector(spot, stage, name, place, streams, made);
        break;
      case "linear":
        for (const part of this.#o.side.parts(place, stage.to)) {
          await this.#matrix(spot, stage, part, place, streams, made);
        }
        break;
      case "experts":
        await this.#experts(spot, stage, place, streams, made, dealing!);
        break;
      case "dispatch":
      case "combine":
      case "concat":
        break; // nothing stored
      default:
        stage satisfies never;
    }
    made.releaseAll();
    const open = [...this.#slots].some(([key, slot]) => slot.open && key.startsWith(`${spot.slot}/`));
    this.#stages.set(spot.slot, open);
  }

  /** Sabotages the head within words [0, words), whose honest logits are `expected`. */
  async logits(
    spot: ControlSite,
    from: string,
    words: number,
    streams: Streams,
    expected: Float32Array,
  ): Promise<void> {
    const { backend, ids, side } = this.#o;
    const honest = Float32Array.from(expected);
    const region = backend.allocate(4 * ids.length * words);
    for (const { tensor, outputs } of side.parts(side.head, ["logits"])) {
      const blocks = outputs
        .filter(({ at }) => at < words)
        .flatMap((feed) => blocksOf({ ...feed, count: Math.min(feed.count, words - feed.at) }, 1));
      const attempts = neighbourTargets(tensor, blocks, 0, "row", "logits", blockColumns(honest, words));
      const target = { door: "logits", attempts, needs: [from] };
      await this.#prove(spot, false, [target], async (replacements) => {
        await side.logits(from, 0, words, [streams.set()], [region], { ...side.head, replacements });
        return async () => relL2(honest, await backend.view(region, ids.length * words));
      });
    }
    backend.release(region);
  }

  /** Rows: heads, groups or single rows of each stream; whole parts of one size; and columns, as the stage eats them. */
  async #matrix(
    spot: ControlSite,
    stage: Stage & { op: "linear" },
    { tensor, outputs, inputOffset }: TensorUse,
    place: BlockNames,
    streams: Streams,
    made: Streams,
  ): Promise<void> {
    const doors = groupByStream(outputs);
    const expected = new Map<string, Float32Array>();
    for (const door of doors.keys()) {
      expected.set(door, Float32Array.from(await this.#view(streams.regions.get(door)!, door)));
    }
    // Only what feeds these doors is read again.
    const alone = { ...stage, to: [...doors.keys()] };
    const run = async (replacements: ReadonlyMap<string, Tensor>) => {
      await this.#o.side.run(alone, { ...place, replacements }, [made.set("stored", streams)]);
      return async (door: string) =>
        relL2(expected.get(door)!, await this.#view(made.regions.get(door)!, door));
    };
    const needs = [stage.from];
    const rows = [...doors].map(([door, fed]) => {
      const { of, blocks } = this.#split(door, fed);
      const values = blockColumns(expected.get(door)!, this.#widths[door]!);
      return { door, attempts: neighbourTargets(tensor, blocks, 0, of, door, values), needs };
    });
    await this.#prove(spot, true, rows, run);
    await this.#prove(
      spot,
      true,
      partTargets(tensor, doors).map((part) => ({ ...part, needs })),
      run,
    );
    const eaten = this.#blocks[stage.from];
    if (eaten === undefined) return;
    const input = await this.#view(streams.regions.get(stage.from)!, stage.from);
    const blocks = blocksOf({ at: inputOffset, from: 0, count: tensor.shape.at(-1)! }, eaten.count);
    const values = blockColumns(input, this.#widths[stage.from]!);
    const attempts = neighbourTargets(tensor, blocks, 1, eaten.of, stage.from, values);
    for (const door of doors.keys()) await this.#prove(spot, true, [{ door, attempts, needs }], run);
  }

  /** One expert's rows, and two experts whole. Only theirs are read. */
  async #experts(
    spot: ControlSite,
    stage: Stage & { op: "experts" },
    place: BlockNames,
    streams: Streams,
    made: Streams,
    dealing: ExpertRows,
  ): Promise<void> {
    const { side } = this.#o;
    const { to } = stage;
    const needs = [stage.from];
    const width = this.#widths[to]!;
    const expected = Float32Array.from(await this.#view(streams.regions.get(to)!, to));
    const run = (dealt: DispatchedRows) => async (replacements: ReadonlyMap<string, Tensor>) => {
      await side.run(stage, { ...place, replacements }, [made.set("stored", streams)], dealt);
      return async () => {
        const got = await this.#view(made.regions.get(to)!, to);
        const distances = dealt.experts.map(({ from, count }) => {
          const [left, right] = [expected, got].map((all) =>
            all.subarray(from * width, (from + count) * width),
          );
          return relL2(left!, right!);
        });
        return Math.max(...distances);
      };
    };
    const few = dealing.experts.slice(0, ATTEMPTS + 1);
    const [first] = few;
    for (const { tensor, outputs } of side.parts(place, [to], first!.expert)) {
      const { of, blocks } = this.#split(to, outputs);
      const { from, count } = first!;
      const values = blockColumns(expected.subarray(from * width, (from + count) * width), width);
      const attempts = neighbourTargets(tensor, blocks, 0, of, to, values);
      await this.#prove(
        spot,
        true,
        [{ door: `${to}.${first!.expert}`, attempts, needs }],
        run(dealing.only([first!.expert])),
      );
    }
    const attempts = few.slice(1).flatMap(({ expert }, i) => {
      const before = few[i]!.expert;
      const [left, right] = [before, expert].map((one) => side.parts(place, [to], one));
      const swaps = left!.flatMap(({ tensor: of, outputs }, n): readonly Exchange[] => {
        const other = right![n]?.tensor;
        if (other === of) {
          // one stack holds them both
          const [mine, theirs] = [outputs[0]!, right![n]!.outputs[0]!];
          return [{ of, exchange: { axis: 0, a: mine.from, b: theirs.from, count: mine.count } }];
        }
        return other !== undefined && sameShape(of.shape, other.shape) && of.dtype === other.dtype
          ? [{ of, with: other }]
          : [];
      });
      return swaps.length === 0 ? [] : [{ mutation: `experts ${before} and ${expert} exchanged`, swaps }];
    });
    const both = [{ door: to, attempts, needs }];
    await this.#prove(spot, true, both, run(dealing.only(few.map(({ expert }) => expert))));
  }

  async #vector(
    spot: ControlSite,
    stage: KernelStage,
    name: string,
    place: BlockNames,
    streams: Streams,
    made: Streams,
  ): Promise<void> {
    const { backend, side } = this.#o;
    const expected = Float32Array.from(await this.#view(streams.regions.get(stage.to)!, stage.to));
    const needs = stage.needs?.[name] ?? [];
    const run = async (replacements: ReadonlyMap<string, Tensor>) => {
      await side.run(stage, { ...place, replacements }, [made.set("stored", streams)]);
      return async () => relL2(expected, await this.#view(made.regions.get(stage.to)!, stage.to));
    };
    for (const { tensor, outputs } of side.parts(place, [name])) {
      const inRow = countOf(tensor.shape) / tensor.shape[0]!;
      const count = inRow * Math.max(...outputs.map((feed) => feed.at + feed.count));
      const vector = Float32Array.from(
        await backend.view(await side.parameter(name, place, "stored"), count),
      );
      const { of, blocks } = this.#split(name, outputs);
      const values = ({ at, count: size }: Block) => vector.subarray(at * inRow, (at + size) * inRow);
      const attempts = neighbourTargets(tensor, blocks, 0, of, name, values);
      await this.#prove(spot, false, [{ door: stage.to, attempts, needs }], run);
      // its other parts belong to other stages, which would not see all that is exchanged between them
      const all = side.parts(place).find((part) => part.tensor === tensor)!.outputs;
      for (const { attempts: swaps, streams: both } of partTargets(tensor, groupByStream(all))) {
        if (!both.includes(name)) continue;
        await this.#prove(spot, false, [{ door: stage.to, attempts: swaps, needs }], run);
      }
    }
  }

  /** Tries each target's swaps, all targets' first ones in one run, until each is caught or none is left to try. */
  async #prove(
    spot: ControlSite,
    matrix: boolean,
    targets: readonly Needing[],
    run: (replacements: ReadonlyMap<string, Tensor>) => Promise<(door: string) => Promise<number>>,
  ): Promise<void> {
    const { limit, layer, kind, dark } = spot;
    const note = (key: string, { door }: ControlTarget, { mutation }: ControlAttempt, outcome: Outcome) =>
      this.#note(key, { layer, kind, door, mutation, ...outcome, matrix });
    let open: { readonly key: string; readonly target: ControlTarget }[] = [];
    for (const target of targets) {
      const key = `${spot.slot}/${this.#turn++}`;
      const before = this.#slots.get(key);
      const [first] = target.attempts;
      if (first === undefined || before?.open === false) continue;
      if (target.needs.some((name) => dark.has(name))) note(key, target, first, ZERO_INPUT);
      else if (before === undefined) open.push({ key, target });
      else {
        // a void control is rarely void by zeros alone: what has no effect here either is not worth a run
        const attempts = await this.#withEffect(target.attempts);
        if (attempts.length > 0) open.push({ key, target: { ...target, attempts } });
      }
    }
    for (let i = 0; i < ATTEMPTS; i++) {
      const tried = open.filter(({ target }) => i < target.attempts.length);
      if (tried.length === 0) break;
      const distanceAt = await run(replacementsFor(tried.flatMap(({ target }) => target.attempts[i]!.swaps)));
      const caught = new Set<string>();
      for (const { key, target } of tried) {
        if ((await distanceAt(target.door)) <= limit) continue;
        caught.add(key);
        note(key, target, target.attempts[i]!, { caught: true });
      }
      open = open.filter(({ key }) => !caught.has(key));
    }
    for (const { key, target } of open) {
      const [missed] = await this.#withEffect(target.attempts.slice(0, ATTEMPTS));
      if (missed === undefined) note(key, target, target.attempts[0]!, EQUAL_BLOCKS);
      else note(key, target, missed, { caught: false });
    }
  }

  /** What is void in two layers keeps the first one's result. */
  #note(key: string, control: Control): void {
    const before = this.#slots.get(key);
    const open = control.caught === null;
    if (before === undefined) {
      this.#slots.set(key, { at: this.results.length, open });
      this.results.push(control);
    } else if (!open) {
      this.#slots.set(key, { at: before.at, open });
      this.results[before.at] = control;
    }
  }

  /** Those that exchange unlike bytes. */
  async #withEffect(attempts: readonly ControlAttempt[]): Promise<readonly ControlAttempt[]> {
    const found: ControlAttempt[] = [];
    for (const attempt of attempts) {
      for (const swap of attempt.swaps) {
        if (await this.#alike(swap)) continue;
        found.push(attempt);
        break;
      }
    }
    return found;
  }

  async #alike(swap: Exchange): Promise<boolean> {
    const { side } = this.#o;
    if ("with" in swap) return side.alike(swap.of, 0, swap.with, 0, countOf(swap.of.shape));
    const { of, exchange } = swap;
    const { axis, a, b, count } = exchange;
    const rows = of.shape[0]!;
    const inRow = countOf(of.shape) / rows;
    if (axis === 0) return side.alike(of, a * inRow, of, b * inRow, count * inRow);
    for (let row = 0; row < rows; row++) {
      if (!(await side.alike(of, row * inRow + a, of, row * inRow + b, count))) return false;
    }
    return true;
  }

  /** What feeds a stream or parameter, in its own blocks where there are two of them, else one by one. */
  #split(name: string, feeds: readonly OutputRows[]): { of: string; blocks: readonly Block[] } {
    const { of, count } = this.#blocks[name] ?? { of: "row", count: 1 };
    const blocks = feeds.flatMap((feed) => blocksOf(feed, count));
    return blocks.length > 1
      ? { of, blocks }
      : { of: "row", blocks: feeds.flatMap((feed) => blocksOf(feed, 1)) };
  }

  #view(region: Region, stream: string): Promise<Float32Array> {
    return this.#o.backend.view(region, this.#o.lengthOf(stream));
  }
}
