/**
 * Positive controls: sabotages that must be seen, so that a green verdict is known to come from open eyes. The first
 * layer of each kind runs once more on the destination's side, on `rounded`'s inputs, with two blocks of one stored
 * tensor exchanged as they are read: heads, groups, rows, whole parts. Its door must then exceed the wiring limit.
 *
 * Blocks are neighbours, and those tried first are the most unlike. Blocks of the same bytes are void: nothing there
 * could be confused. What stays green although its bytes changed is a miss, and makes the verdict `unproven`.
 */
import type { Backend, Region } from "../../kernels/define.ts";
import { type Tensor, tensorKey } from "../core/checkpoint.ts";
import { countOf, sameShape } from "../core/dtype.ts";
import type { Dims, Feed, Forward, KernelStage, Stage } from "../families/define.ts";
import type { Dealing, Dealt } from "./dealing.ts";
import { relL2 } from "./metrics.ts";
import {
  ATTEMPTS,
  type Attempt,
  type Block,
  blocksOf,
  byStream,
  columnsOf,
  distance,
  mostUnlike,
  neighbours,
  parts,
  type Swap,
  swapped,
  type Target,
} from "./sabotage.ts";
import type { Side } from "./side.ts";
import type { Part, Place } from "./stored.ts";
import { ends, Streams } from "./streams.ts";

export interface Control {
  readonly layer: number;
  readonly kind: string;
  readonly door: string;
  readonly mutation: string;
  /** null where the blocks are alike: nothing could be confused */
  readonly caught: boolean | null;
}

export interface ControlsOptions {
  readonly backend: Backend;
  readonly forward: Forward;
  readonly dims: Dims;
  readonly ids: readonly number[];
  /** the destination's */
  readonly side: Side;
  /** elements of a stream */
  readonly lengthOf: (stream: string) => number;
}

/** Where controls are run, and how far a door may be off there. */
export interface Spot {
  readonly layer: number;
  readonly kind: string;
  readonly limit: number;
}

export class Controls {
  readonly results: Control[] = [];
  readonly #o: ControlsOptions;
  readonly #widths: Readonly<Record<string, number>>;
  readonly #blocks: ReturnType<Forward["blocks"]>;

  constructor(options: ControlsOptions) {
    this.#o = options;
    this.#widths = options.forward.streams(options.dims);
    this.#blocks = options.forward.blocks(options.dims);
  }

  /** Sabotages the token table; `residual` is what an honest one gives. */
  async embed(spot: Spot, residual: Region): Promise<void> {
    const { backend, ids, side } = this.#o;
    const tables = side.tables.flatMap(({ tensor, feeds }) => feeds.map((feed) => ({ tensor, ...feed })));
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
    await this.#prove(spot, [{ door: "residual", attempts }], async (instead) => {
      await side.embed(ids, "stored", region, instead);
      return async () => relL2(expected, await this.#view(region, "residual"));
    });
    backend.release(region);
  }

  /** Sabotages each stored tensor that a stage draws on; `streams` holds what it reads and what it should make. */
  async stage(spot: Spot, stage: Stage, place: Place, streams: Streams, dealing?: Dealing): Promise<void> {
    const made = new Streams(this.#o.backend, this.#o.lengthOf);
    made.make(ends(stage).makes);
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
      case "deal":
      case "collect":
      case "join":
        break; // nothing stored
      default:
        stage satisfies never;
    }
    made.releaseAll();
  }

  /** Sabotages the head within words [0, words), whose honest logits are `expected`. */
  async logits(
    spot: Spot,
    from: string,
    words: number,
    streams: Streams,
    expected: Float32Array,
  ): Promise<void> {
    const { backend, ids, side } = this.#o;
    const honest = Float32Array.from(expected);
    const region = backend.allocate(4 * ids.length * words);
    for (const { tensor, feeds } of side.parts(side.head, ["logits"])) {
      const blocks = feeds
        .filter(({ at }) => at < words)
        .flatMap((feed) => blocksOf({ ...feed, count: Math.min(feed.count, words - feed.at) }, 1));
      const attempts = neighbours(tensor, blocks, 0, "row", "logits", columnsOf(honest, words));
      await this.#prove(spot, [{ door: "logits", attempts }], async (instead) => {
        await side.logits(from, 0, words, [streams.set()], [region], { ...side.head, instead });
        return async () => relL2(honest, await backend.view(region, ids.length * words));
      });
    }
    backend.release(region);
  }

  /** Rows: heads, groups or single rows of each stream; whole parts of one size; and columns, as the stage eats them. */
  async #matrix(
    spot: Spot,
    stage: Stage & { op: "linear" },
    { tensor, feeds, eats }: Part,
    place: Place,
    streams: Streams,
    made: Streams,
  ): Promise<void> {
    const doors = byStream(feeds);
    const expected = new Map<string, Float32Array>();
    for (const door of doors.keys()) {
      expected.set(door, Float32Array.from(await this.#view(streams.regions.get(door)!, door)));
    }
    // Only what feeds these doors is read again.
    const alone = { ...stage, to: [...doors.keys()] };
    const run = async (instead: ReadonlyMap<string, Tensor>) => {
      await this.#o.side.run(alone, { ...place, instead }, [made.set("stored", streams)]);
      return async (door: string) =>
        relL2(expected.get(door)!, await this.#view(made.regions.get(door)!, door));
    };
    const rows = [...doors].map(([door, fed]) => {
      const { of, blocks } = this.#split(door, fed);
      const values = columnsOf(expected.get(door)!, this.#widths[door]!);
      return { door, attempts: neighbours(tensor, blocks, 0, of, door, values) };
    });
    await this.#prove(spot, rows, run);
    await this.#prove(spot, parts(tensor, doors), run);
    const eaten = this.#blocks[stage.from];
    if (eaten === undefined) return;
    const input = await this.#view(streams.regions.get(stage.from)!, stage.from);
    const blocks = blocksOf({ at: eats, from: 0, count: tensor.shape.at(-1)! }, eaten.count);
    const values = columnsOf(input, this.#widths[stage.from]!);
    const attempts = neighbours(tensor, blocks, 1, eaten.of, stage.from, values);
    for (const door of doors.keys()) await this.#prove(spot, [{ door, attempts }], run);
  }

  /** One expert's rows, and two experts whole. Only theirs are read. */
  async #experts(
    spot: Spot,
    stage: Stage & { op: "experts" },
    place: Place,
    streams: Streams,
    made: Streams,
    dealing: Dealing,
  ): Promise<void> {
    const { side } = this.#o;
    const { to } = stage;
    const width = this.#widths[to]!;
    const expected = Float32Array.from(await this.#view(streams.regions.get(to)!, to));
    const run = (dealt: Dealt) => async (instead: ReadonlyMap<string, Tensor>) => {
      await side.run(stage, { ...place, instead }, [made.set("stored", streams)], dealt);
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
    for (const { tensor, feeds } of side.parts(place, [to], first!.expert)) {
      const { of, blocks } = this.#split(to, feeds);
      const { from, count } = first!;
      const values = columnsOf(expected.subarray(from * width, (from + count) * width), width);
      const attempts = neighbours(tensor, blocks, 0, of, to, values);
      await this.#prove(
        spot,
        [{ door: `${to}.${first!.expert}`, attempts }],
        run(dealing.only([first!.expert])),
      );
    }
    const attempts = few.slice(1).flatMap(({ expert }, i) => {
      const before = few[i]!.expert;
      const [left, right] = [before, expert].map((one) => side.parts(place, [to], one));
      const swaps = left!.flatMap(({ tensor: of, feeds }, n): readonly Swap[] => {
        const other = right![n]?.tensor;
        if (other === of) {
          // one stack holds them both
          const [mine, theirs] = [feeds[0]!, right![n]!.feeds[0]!];
          return [{ of, exchange: { axis: 0, a: mine.from, b: theirs.from, count: mine.count } }];
        }
        return other !== undefined && sameShape(of.shape, other.shape) && of.dtype === other.dtype
          ? [{ of, with: other }]
          : [];
      });
      return swaps.length === 0 ? [] : [{ mutation: `experts ${before} and ${expert} exchanged`, swaps }];
    });
    await this.#prove(spot, [{ door: to, attempts }], run(dealing.only(few.map(({ expert }) => expert))));
  }

  async #vector(
    spot: Spot,
    stage: KernelStage,
    name: string,
    place: Place,
    streams: Streams,
    made: Streams,
  ): Promise<void> {
    const { backend, side } = this.#o;
    const expected = Float32Array.from(await this.#view(streams.regions.get(stage.to)!, stage.to));
    const run = async (instead: ReadonlyMap<string, Tensor>) => {
      await side.run(stage, { ...place, instead }, [made.set("stored", streams)]);
      return async () => relL2(expected, await this.#view(made.regions.get(stage.to)!, stage.to));
    };
    for (const { tensor, feeds } of side.parts(place, [name])) {
      const inRow = countOf(tensor.shape) / tensor.shape[0]!;
      const count = inRow * Math.max(...feeds.map((feed) => feed.at + feed.count));
      const vector = Float32Array.from(
        await backend.view(await side.parameter(name, place, "stored"), count),
      );
      const { of, blocks } = this.#split(name, feeds);
      const values = ({ at, count: size }: Block) => vector.subarray(at * inRow, (at + size) * inRow);
      const attempts = neighbours(tensor, blocks, 0, of, name, values);
      await this.#prove(spot, [{ door: stage.to, attempts }], run);
      // its other parts belong to other stages, which would not see all that is exchanged between them
      const all = side.parts(place).find((part) => part.tensor === tensor)!.feeds;
      for (const { attempts: swaps, streams: both } of parts(tensor, byStream(all))) {
        if (both.includes(name)) await this.#prove(spot, [{ door: stage.to, attempts: swaps }], run);
      }
    }
  }

  /** Tries each target's swaps, all targets' first ones in one run, until each is caught or none is left to try. */
  async #prove(
    { limit, ...spot }: Spot,
    targets: readonly Target[],
    run: (instead: ReadonlyMap<string, Tensor>) => Promise<(door: string) => Promise<number>>,
  ): Promise<void> {
    let open = targets.filter(({ attempts }) => attempts.length > 0);
    for (let i = 0; i < ATTEMPTS; i++) {
      const tried = open.filter(({ attempts }) => i < attempts.length);
      if (tried.length === 0) break;
      const distanceAt = await run(swapped(tried.flatMap(({ attempts }) => attempts[i]!.swaps)));
      const caught = new Set<Target>();
      for (const target of tried) {
        const { door, attempts } = target;
        if ((await distanceAt(door)) <= limit) continue;
        caught.add(target);
        this.results.push({ ...spot, door, mutation: attempts[i]!.mutation, caught: true });
      }
      open = open.filter((target) => !caught.has(target));
    }
    for (const { door, attempts } of open) {
      const missed = await this.#firstWithEffect(attempts.slice(0, ATTEMPTS));
      const { mutation } = missed ?? attempts[0]!;
      this.results.push({ ...spot, door, mutation, caught: missed === undefined ? null : false });
    }
  }

  /** Undefined where all that would be exchanged is the same bytes. */
  async #firstWithEffect(attempts: readonly Attempt[]): Promise<Attempt | undefined> {
    for (const attempt of attempts) {
      for (const swap of attempt.swaps) if (!(await this.#alike(swap))) return attempt;
    }
    return undefined;
  }

  async #alike(swap: Swap): Promise<boolean> {
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
  #split(name: string, feeds: readonly Feed[]): { of: string; blocks: readonly Block[] } {
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
