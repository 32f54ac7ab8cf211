/**
 * Positive controls: sabotages that must be seen, so that a green verdict is known to come from open eyes. The first
 * layer of each kind runs once more on the destination's side, on `rounded`'s inputs, with two blocks of one stored
 * tensor exchanged as they are read: heads, groups, rows, whole parts. Its door must then exceed the wiring limit.
 *
 * Blocks are neighbours, and those tried first are the most unlike. Blocks of the same bytes are void: nothing there
 * could be confused. What stays green although its bytes changed is a miss, and makes the verdict `unproven`.
 */
import type { Backend, Region } from "../../kernels/define.ts";
import type { Tensor } from "../core/checkpoint.ts";
import { countOf } from "../core/dtype.ts";
import type { Dims, Feed, Forward, Stage, Use } from "../families/define.ts";
import { type Exchange, exchanged } from "./exchange.ts";
import { relL2 } from "./metrics.ts";
import type { Place, Side } from "./side.ts";
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
}

/** Where controls are run, and how far a door may be off there. */
export interface Spot {
  readonly layer: number;
  readonly kind: string;
  readonly limit: number;
}

/** Pairs of blocks tried before a control counts as missed. */
const ATTEMPTS = 4;

interface Attempt {
  readonly mutation: string;
  readonly exchanges: readonly Exchange[];
}

/** What is tried at one door, the likeliest to show first. */
interface Target {
  readonly door: string;
  readonly attempts: readonly Attempt[];
}

/** Elements [at, at + count) of a stream or parameter, made by rows or columns `from` on of a stored tensor. */
interface Block {
  readonly at: number;
  readonly from: number;
  readonly count: number;
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
    const { table } = side;
    const expected = await this.#copy(residual, "residual");
    const width = this.#widths.residual!;
    const rows = [...new Map(ids.map((id, t) => [id, t]))];
    const pairs = rows.flatMap(([id, t], i) => {
      const [other, u] = rows[i + 1] ?? [];
      if (other === undefined) return [];
      const row = (at: number) => expected.subarray(at * width, (at + 1) * width);
      return [{ a: id, b: other, unlike: distance(row(t), row(u!)) }];
    });
    // one token alone is exchanged with its neighbour in the table
    if (pairs.length === 0) pairs.push({ a: ids[0]!, b: ids[0]! === 0 ? 1 : ids[0]! - 1, unlike: 0 });
    const attempts = mostUnlike(pairs).map(({ a, b }) => ({
      mutation: `tokens ${a} and ${b} of ${table.name} exchanged`,
      exchanges: [{ axis: 0 as const, a, b, count: 1 }],
    }));
    const region = backend.allocate(residual.bytes);
    await this.#prove(spot, table, [{ door: "residual", attempts }], async (instead) => {
      await side.embed(ids, "stored", region, instead);
      return async () => relL2(expected, await this.#view(region, "residual"));
    });
    backend.release(region);
  }

  /** Sabotages each stored tensor that a stage draws on; `streams` holds what it reads and what it should make. */
  async stage(spot: Spot, stage: Stage, place: Place, streams: Streams): Promise<void> {
    const made = new Streams(this.#o.backend, this.#widths, this.#o.ids.length);
    made.make(ends(stage).makes);
    for (const use of place.uses) {
      const feeds = use.feeds(this.#o.dims);
      if (stage.op === "kernel") await this.#vector(spot, stage, place, use, feeds, streams, made);
      else await this.#matrix(spot, stage, place, use, feeds, streams, made);
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
    const { backend, ids, side, dims } = this.#o;
    const honest = Float32Array.from(expected);
    const region = backend.allocate(4 * ids.length * words);
    for (const use of side.head.uses) {
      const feeds = use.feeds(dims).filter(({ to, at }) => to === "logits" && at < words);
      const blocks = feeds.flatMap((feed) =>
        blocksOf({ ...feed, count: Math.min(feed.count, words - feed.at) }, 1),
      );
      const attempts = this.#neighbours(use, blocks, 0, "row", "logits", columnsOf(honest, words));
      await this.#prove(
        spot,
        side.tensor(use, side.head),
        [{ door: "logits", attempts }],
        async (instead) => {
          await side.logits(from, 0, words, [streams.set()], [region], { ...side.head, instead });
          return async () => relL2(honest, await backend.view(region, ids.length * words));
        },
      );
    }
    backend.release(region);
  }

  /** Rows: heads, groups or single rows of each stream; whole parts of one size; and columns, as the stage eats them. */
  async #matrix(
    spot: Spot,
    stage: Stage & { op: "linear" },
    place: Place,
    use: Use,
    all: readonly Feed[],
    streams: Streams,
    made: Streams,
  ): Promise<void> {
    const doors = byStream(all.filter(({ to }) => stage.to.includes(to)));
    if (doors.size === 0) return;
    const tensor = this.#o.side.tensor(use, place);
    const expected = new Map<string, Float32Array>();
    for (const door of doors.keys()) expected.set(door, await this.#copy(streams.regions.get(door)!, door));
    const run = async (instead: Tensor) => {
      await this.#o.side.run(stage, { ...place, uses: [use], instead }, [made.set("stored", streams)]);
      return async (door: string) => {
        const theirs = await this.#view(made.regions.get(door)!, door);
        return relL2(
          expected.get(door)!,
          patched(expected.get(door)!, theirs, doors.get(door)!, this.#widths[door]!),
        );
      };
    };
    const rows = [...doors].map(([door, feeds]) => {
      const { of, blocks } = this.#split(door, feeds);
      const values = columnsOf(expected.get(door)!, this.#widths[door]!);
      return { door, attempts: this.#neighbours(use, blocks, 0, of, door, values) };
    });
    await this.#prove(spot, tensor, rows, run);
    await this.#prove(spot, tensor, parts(use, doors), run);
    const eaten = this.#blocks[stage.from];
    if (eaten === undefined) return;
    const input = await this.#view(streams.regions.get(stage.from)!, stage.from);
    const blocks = blocksOf({ at: 0, from: 0, count: tensor.shape[1]! }, eaten.count);
    const values = columnsOf(input, this.#widths[stage.from]!);
    const attempts = this.#neighbours(use, blocks, 1, eaten.of, stage.from, values);
    for (const door of doors.keys()) await this.#prove(spot, tensor, [{ door, attempts }], run);
  }

  async #vector(
    spot: Spot,
    stage: Stage & { op: "kernel" },
    place: Place,
    use: Use,
    all: readonly Feed[],
    streams: Streams,
    made: Streams,
  ): Promise<void> {
    const { backend, side } = this.#o;
    const tensor = side.tensor(use, place);
    const expected = await this.#copy(streams.regions.get(stage.to)!, stage.to);
    const run = async (instead: Tensor) => {
      await side.run(stage, { ...place, instead }, [made.set("stored", streams)]);
      return async () => relL2(expected, await this.#view(made.regions.get(stage.to)!, stage.to));
    };
    for (const name of stage.parameters) {
      const feeds = all.filter(({ to }) => to === name);
      if (feeds.length === 0) continue;
      const inRow = countOf(tensor.shape) / tensor.shape[0]!;
      const count = inRow * Math.max(...feeds.map((feed) => feed.at + feed.count));
      const vector = Float32Array.from(
        await backend.view(await side.parameter(name, place, "stored"), count),
      );
      const { of, blocks } = this.#split(name, feeds);
      const values = (block: Block) => vector.subarray(block.at * inRow, (block.at + block.count) * inRow);
      const attempts = this.#neighbours(use, blocks, 0, of, name, values);
      await this.#prove(spot, tensor, [{ door: stage.to, attempts }], run);
      const confused = parts(use, byStream(all)).filter(({ streams: both }) => both.includes(name));
      for (const { attempts: swaps } of confused) {
        await this.#prove(spot, tensor, [{ door: stage.to, attempts: swaps }], run);
      }
    }
  }

  /** Tries each target's exchanges, all targets' first ones in one run, until each is caught or none is left to try. */
  async #prove(
    { limit, ...spot }: Spot,
    tensor: Tensor,
    targets: readonly Target[],
    run: (instead: Tensor) => Promise<(door: string) => Promise<number>>,
  ): Promise<void> {
    let open = targets.filter(({ attempts }) => attempts.length > 0);
    for (let i = 0; i < ATTEMPTS; i++) {
      const tried = open.filter(({ attempts }) => i < attempts.length);
      if (tried.length === 0) break;
      const exchanges = tried.flatMap(({ attempts }) => attempts[i]!.exchanges);
      const distanceAt = await run(exchanges.reduce(exchanged, tensor));
      const caught = new Set<Target>();
      for (const target of tried) {
        if ((await distanceAt(target.door)) <= limit) continue;
        caught.add(target);
        this.results.push({
          ...spot,
          door: target.door,
          mutation: target.attempts[i]!.mutation,
          caught: true,
        });
      }
      open = open.filter((target) => !caught.has(target));
    }
    for (const { door, attempts } of open) {
      let mutation: string | undefined;
      for (const attempt of attempts.slice(0, ATTEMPTS)) {
        if (mutation !== undefined || (await this.#void(tensor, attempt))) continue;
        mutation = attempt.mutation;
      }
      const caught = mutation === undefined ? null : false;
      this.results.push({ ...spot, door, mutation: mutation ?? attempts[0]!.mutation, caught });
    }
  }

  async #void(tensor: Tensor, { exchanges }: Attempt): Promise<boolean> {
    for (const exchange of exchanges) if (!(await this.#o.side.alike(tensor, exchange))) return false;
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

  #neighbours(
    use: Use,
    blocks: readonly Block[],
    axis: Exchange["axis"],
    of: string,
    stream: string,
    values: (block: Block) => Float32Array,
  ): readonly Attempt[] {
    const pairs = blocks.slice(1).flatMap((right, i) => {
      const left = blocks[i]!;
      if (left.count !== right.count) return [];
      return [{ left, right, i, unlike: distance(values(left), values(right)) }];
    });
    const what = axis === 0 ? "" : "columns of ";
    return mostUnlike(pairs).map(({ left, right, i }) => ({
      mutation: `${use.name}: ${what}${of}s ${i} and ${i + 1} of ${stream} exchanged`,
      exchanges: [{ axis, a: left.from, b: right.from, count: left.count }],
    }));
  }

  async #copy(region: Region, stream: string): Promise<Float32Array> {
    return Float32Array.from(await this.#view(region, stream));
  }

  #view(region: Region, stream: string): Promise<Float32Array> {
    return this.#o.backend.view(region, this.#o.ids.length * this.#widths[stream]!);
  }
}

function byStream(feeds: readonly Feed[]): ReadonlyMap<string, readonly Feed[]> {
  const names = [...new Set(feeds.map(({ to }) => to))];
  return new Map(names.map((name) => [name, feeds.filter(({ to }) => to === name)]));
}

function blocksOf({ at, from, count }: Block, size: number): readonly Block[] {
  return Array.from({ length: Math.floor(count / size) }, (_, i) => {
    return { at: at + i * size, from: from + i * size, count: size };
  });
}

/** Parts of one tensor that follow each other and are cut alike, such as z and x, or k and v: each for the other. */
function parts(
  { name }: Use,
  streams: ReadonlyMap<string, readonly Feed[]>,
): readonly (Target & { readonly streams: readonly string[] })[] {
  const all = [...streams];
  return all.slice(1).flatMap(([right, theirs], i) => {
    const [left, mine] = all[i]!;
    if (mine.length !== theirs.length || mine.some(({ count }, n) => count !== theirs[n]!.count)) return [];
    const exchanges = mine.map(({ from, count }, n) => ({
      axis: 0 as const,
      a: from,
      b: theirs[n]!.from,
      count,
    }));
    const attempts = [{ mutation: `${name}: ${left} and ${right} exchanged`, exchanges }];
    return [{ door: left, attempts, streams: [left, right] }];
  });
}

function mostUnlike<T extends { readonly unlike: number }>(pairs: readonly T[]): readonly T[] {
  return [...pairs].sort((a, b) => b.unlike - a.unlike).slice(0, ATTEMPTS);
}

function distance(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - b[i]!) ** 2;
  return Number.isNaN(sum) ? 0 : sum;
}

/** The elements of a block in every row of a stream [T, width]. */
function columnsOf(stream: Float32Array, width: number): (block: Block) => Float32Array {
  return ({ at, count }) => {
    const rows = Math.floor(stream.length / width);
    const values = new Float32Array(rows * count);
    for (let t = 0; t < rows; t++)
      values.set(stream.subarray(t * width + at, t * width + at + count), t * count);
    return values;
  };
}

/** `expected` with the elements that `feeds` make taken from `theirs`: what other tensors feed was not made. */
function patched(
  expected: Float32Array,
  theirs: Float32Array,
  feeds: readonly Feed[],
  width: number,
): Float32Array {
  const values = Float32Array.from(expected);
  for (const { at, count } of feeds) {
    for (let row = 0; row < values.length; row += width) {
      values.set(theirs.subarray(row + at, row + at + count), row + at);
    }
  }
  return values;
}
