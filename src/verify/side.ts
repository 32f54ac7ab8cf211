/**
 * One side of a verification: a checkpoint that runs natively, on its own stored tensors. No layer is resident: a
 * stored matrix is read in bands, each feeds every stream of the side, and goes. No layout is imported here.
 */

import { add } from "../../kernels/add.ts";
import type { Backend, Region } from "../../kernels/define.ts";
import { linear } from "../../kernels/linear.ts";
import { mix } from "../../kernels/mix.ts";
import { type Tensor, tensorKey } from "../core/checkpoint.ts";
import { countOf, type FloatDType, isFloat, type Shape, widthOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { widen } from "../core/float.ts";
import { extentsOf, type Sources } from "../core/read.ts";
import type { Dims, Feed, Forward, KernelStage, Layer, Native, Stage } from "../families/define.ts";
import type { Dealing } from "./dealing.ts";
import type { Rounding, RowRounding } from "./rounding.ts";
import { type Part, type Place, Stored } from "./stored.ts";

/** Streams by name: what a stage reads, and where it puts what it makes. */
export interface StreamSet {
  readonly inputs: Map<string, Region>;
  readonly outputs: Map<string, Region>;
  /** run on the weights as stored, or as the other side's recast rounds them */
  readonly weights: "stored" | "rounded";
}

/** What rounds weights as the other side's recast does. */
export interface Rounds {
  /** Fills `target` with the rounded elements of `stored`. */
  round(stored: Uint8Array, from: FloatDType, scale: number, to: Rounding, target: Uint8Array): void;
}

export interface SideOptions {
  readonly backend: Backend;
  readonly forward: Forward;
  readonly native: Native;
  readonly dims: Dims;
  readonly tokens: number;
  /** by `tensorKey`, as are the scales and roundings */
  readonly tensors: ReadonlyMap<string, Tensor>;
  readonly sources: Sources;
  /** the scale of an FP8 tensor; 1 where there is none */
  readonly scaleOf: ReadonlyMap<string, number>;
  /** how the other side stores what rows of a tensor hold, in their order; absent where it is the same */
  readonly roundings: ReadonlyMap<string, readonly RowRounding[]>;
  readonly rounder: Rounds;
  /** bytes of weights read at a time */
  readonly bandBytes: number;
  readonly advance: (bytes: number) => void;
  readonly signal: AbortSignal | undefined;
}

/** Rows [lo, hi) of a stored matrix that multiply `count` rows of a stream, from row `first` on. */
interface Product {
  readonly tensor: Tensor;
  readonly feeds: readonly Feed[];
  readonly lo: number;
  readonly hi: number;
  /** where in a row of the stream its first column begins */
  readonly eats: number;
  readonly first: number;
  readonly count: number;
}

/** Rows [lo, hi) of a stored matrix, in each form that a set may ask for. */
interface Band {
  readonly lo: number;
  readonly hi: number;
  readonly forms: Readonly<Record<StreamSet["weights"], Weights>>;
}

interface Weights {
  readonly region: Region;
  readonly dtype: FloatDType;
  readonly scale: number;
}

export class Side {
  readonly #o: SideOptions;
  readonly #stored: Stored;
  /** two, so that one is read while the other is used */
  readonly #bands: readonly { readonly stored: Region; readonly rounded: Region }[];
  readonly #widths: Readonly<Record<string, number>>;
  #parameters = new Map<string, Region>();

  constructor(options: SideOptions) {
    this.#o = options;
    const { native, dims, forward, tensors } = options;
    this.#stored = new Stored(native, dims, forward.experts(dims), tensors.values());
    this.#widths = forward.streams(dims);
    const widest = Math.max(...[...tensors.values()].map(rowBytes));
    const bytes = Math.max(options.bandBytes, widest);
    const growth = [...options.roundings].flatMap(([key, rows]) =>
      rows.map(({ rounding }) => widthOf(rounding.to) / widthOf(tensors.get(key)!.dtype)),
    );
    this.#bands = [0, 1].map(() => ({
      stored: options.backend.allocate(bytes),
      rounded: options.backend.allocate(bytes * Math.max(0, ...growth)),
    }));
  }

  layer(layer: Layer): Place {
    return this.#stored.layer(layer);
  }

  step(end: "join" | "end", layer: Layer): Place {
    return this.#stored.step(end, layer);
  }

  get head(): Place {
    return this.#stored.outside("head");
  }

  /** The token table's rows for `ids`: [tokens, hidden] F32. */
  async embed(ids: readonly number[], weights: StreamSet["weights"], output: Region): Promise<void> {
    const parts = this.#stored.parts(this.#stored.outside("embedding"), ["vocabulary"]);
    const rows = parts.flatMap(({ tensor, feeds }) => feeds.map((feed) => ({ tensor, ...feed })));
    const hidden = parts[0]?.tensor.shape.at(-1) ?? 0;
    await this.#o.backend.upload(output, 4 * ids.length * hidden, async (view) => {
      for (const [t, id] of ids.entries()) {
        const found = rows.find(({ at, count }) => id >= at && id < at + count);
        if (found === undefined) throw unfed("word", `${id}`);
        const from = (found.from + id - found.at) * hidden;
        view.set(await this.#wide(found.tensor, from, from + hidden, weights), 4 * t * hidden);
      }
    });
  }

  /** In which columns a stage's sums fall apart, where they do: two sides that are alike here sum in one order. */
  cuts(stage: Stage, place: Place): string {
    if (stage.op !== "linear" && stage.op !== "experts") return "";
    const parts = this.#stored.parts(place, [stage.to].flat());
    return [...new Set(parts.map(({ eats }) => eats))].sort((a, b) => a - b).join();
  }

  /**
   * Runs one stage for each set, over one reading of the weights.
   *
   * @param dealing of this layer's tokens, where its stages are of experts
   */
  async run(stage: Stage, place: Place, sets: readonly StreamSet[], dealing?: Dealing): Promise<void> {
    switch (stage.op) {
      case "kernel":
        for (const set of sets) await this.#kernel(stage, place, set, dealing);
        return;
      case "linear": {
        const parts = this.#stored.parts(place, stage.to);
        this.#refuseUnfed(parts, stage.from, stage.to, place);
        const products = parts.map((part) => product(part, 0, this.#o.tokens));
        return this.#multiply(products, stage.from, this.#o.tokens, sets);
      }
      case "experts": {
        const products = dealing!.experts.flatMap(({ expert, from, count }) => {
          const parts = this.#stored.parts(place, [stage.to], expert);
          this.#refuseUnfed(parts, stage.from, [stage.to], place);
          return parts.map((part) => product(part, from, count));
        });
        return this.#multiply(products, stage.from, dealing!.rows, sets);
      }
      case "deal":
        for (const { inputs, outputs } of sets) {
          const p = {
            rows: dealing!.rows,
            sources: this.#o.tokens,
            terms: 1,
            width: this.#widths[stage.to]!,
          };
          const operands = [inputs.get(stage.from)!, dealing!.tokenOf, dealing!.ones];
          await this.#o.backend.run(mix, p, operands, outputs.get(stage.to)!);
        }
        return;
      case "collect":
        for (const { inputs, outputs } of sets) {
          const { rows: sources, perToken: terms, rowOf } = dealing!;
          const p = { rows: this.#o.tokens, sources, terms, width: this.#widths[stage.to]! };
          const operands = [inputs.get(stage.from)!, rowOf, inputs.get(stage.weights)!];
          await this.#o.backend.run(mix, p, operands, outputs.get(stage.to)!);
        }
        return;
      case "join":
        for (const set of sets) await this.#join(stage.from, stage.to, set);
        return;
      default:
        stage satisfies never;
    }
  }

  /**
   * Logits of words [lo, hi), one [tokens, hi - lo] block a set, into `outputs`.
   * The vocabulary is never held whole: 131,072 words of 4,096 tokens would be 2 GiB.
   */
  async logits(
    from: string,
    lo: number,
    hi: number,
    sets: readonly StreamSet[],
    outputs: readonly Region[],
  ): Promise<void> {
    const blocks = sets.map(({ inputs, weights }, i) => ({
      ...{ inputs, weights },
      outputs: new Map([["logits", outputs[i]!]]),
    }));
    const parts = this.#stored.parts(this.head, ["logits"]);
    this.#refuseUnfed(parts, from, ["logits"], this.head);
    const products = parts.flatMap((part) => {
      const feeds = part.feeds.map((feed) => clipped(feed, lo, hi)).filter(({ count }) => count > 0);
      return feeds.length === 0 ? [] : [product({ ...part, feeds }, 0, this.#o.tokens)];
    });
    for await (const { product, band } of this.#read(products)) {
      for (const block of blocks) {
        for (const feed of product.feeds) await this.#feed(band, product, feed, from, block, hi - lo);
      }
    }
  }

  /** Lets a layer's vectors go. */
  forget(): void {
    for (const region of this.#parameters.values()) this.#o.backend.release(region);
    this.#parameters.clear();
  }

  close(): void {
    this.forget();
    for (const { stored, rounded } of this.#bands) {
      this.#o.backend.release(stored);
      this.#o.backend.release(rounded);
    }
  }

  /** @throws TENSOR_MISSING where not every row of the streams is a product with all of the input */
  #refuseUnfed(parts: readonly Part[], from: string, streams: readonly string[], place: Place): void {
    for (const stream of streams) {
      let area = 0;
      for (const { tensor, feeds } of parts) {
        for (const { to, count } of feeds) if (to === stream) area += count * tensor.shape.at(-1)!;
      }
      if (area !== this.#widths[stream]! * this.#widths[from]!) throw unfed(stream, place.prefix);
    }
  }

  async #kernel(
    stage: KernelStage,
    place: Place,
    set: StreamSet,
    dealing: Dealing | undefined,
  ): Promise<void> {
    const { backend, dims, tokens, forward } = this.#o;
    const inputs = stage.from.map((name) => set.inputs.get(name)!);
    for (const name of stage.parameters) inputs.push(await this.#parameter(name, place, set.weights));
    const rows = forward.dealt.includes(stage.to) ? dealing!.rows : tokens;
    await stage.run(backend, dims, rows, inputs, set.outputs.get(stage.to)!);
  }

  async #join([left, right]: readonly [string, string], to: string, set: StreamSet): Promise<void> {
    const { backend, tokens } = this.#o;
    const streams = [left, right].map((name) => ({ name, width: this.#widths[name]! }));
    const width = this.#widths[to]!;
    const joined = new Float32Array(tokens * width);
    for (const [i, { name, width: mine }] of streams.entries()) {
      const values = await backend.view(set.inputs.get(name)!, tokens * mine);
      for (let t = 0; t < tokens; t++) {
        joined.set(values.subarray(t * mine, (t + 1) * mine), t * width + i * streams[0]!.width);
      }
    }
    await backend.upload(set.outputs.get(to)!, joined.byteLength, (view) =>
      view.set(new Uint8Array(joined.buffer)),
    );
  }

  /** A vector, widened to F32, from the stored tensors whose rows feed it; kept until `forget`. */
  async #parameter(name: string, place: Place, weights: StreamSet["weights"]): Promise<Region> {
    const key = `${weights} ${name}`;
    const known = this.#parameters.get(key);
    if (known !== undefined) return known;
    const pieces = this.#stored.parts(place, [name]).flatMap(({ tensor, feeds }) => {
      const inRow = countOf(tensor.shape) / tensor.shape[0]!;
      return feeds.map(({ at, from, count }) => ({ tensor, ...scaled({ at, from, count }, inRow) }));
    });
    const length = pieces.reduce((sum, { count }) => sum + count, 0);
    if (length === 0) throw unfed(name, place.prefix);
    const region = this.#o.backend.allocate(4 * length);
    await this.#o.backend.upload(region, 4 * length, async (view) => {
      for (const { tensor, at, from, count } of pieces) {
        view.set(await this.#wide(tensor, from, from + count, weights), 4 * at);
        if (weights === "stored") this.#o.advance(count * widthOf(tensor.dtype));
      }
    });
    this.#parameters.set(key, region);
    return region;
  }

  /** Where ranks share a matrix out by columns, their partial sums are added in the order of ranks. */
  async #multiply(
    products: readonly Product[],
    from: string,
    rows: number,
    sets: readonly StreamSet[],
  ): Promise<void> {
    const { backend } = this.#o;
    for (const [turn, round] of rounds(products).entries()) {
      const names = [...new Set(round.flatMap(({ feeds }) => feeds.map(({ to }) => to)))];
      const partial = (name: string) => backend.allocate(4 * rows * this.#widths[name]!);
      const targets = sets.map((set) =>
        turn === 0 ? set : { ...set, outputs: new Map(names.map((name) => [name, partial(name)])) },
      );
      for await (const { product, band } of this.#read(round)) {
        for (const set of targets) {
          for (const feed of product.feeds)
            await this.#feed(band, product, feed, from, set, this.#widths[feed.to]!);
        }
      }
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

  /** The stored rows, a band at a time; the next is read while this one is used. */
  async *#read(products: readonly Product[]): AsyncGenerator<{ product: Product; band: Band }> {
    const spans = products.flatMap((product) => {
      const step = Math.max(1, Math.floor(this.#o.bandBytes / rowBytes(product.tensor)));
      const cuts: { product: Product; lo: number; hi: number }[] = [];
      for (let lo = product.lo; lo < product.hi; lo = cuts.at(-1)!.hi) {
        // a band has one rounding
        const until = this.#roundingAt(product.tensor, lo).until;
        cuts.push({ product, lo, hi: Math.min(product.hi, lo + step, until) });
      }
      return cuts;
    });
    const fill = (i: number) => {
      const { product, lo, hi } = spans[i]!;
      const filled = this.#fill(product.tensor, lo, hi, i);
      filled.catch(() => {}); // awaited below; a consumer that stops early must not leave it unhandled
      return filled;
    };
    let next = spans.length === 0 ? undefined : fill(0);
    for (const [i, { product, lo, hi }] of spans.entries()) {
      const band = await next!;
      if (i + 1 < spans.length) next = fill(i + 1);
      yield { product, band };
      this.#o.advance((hi - lo) * rowBytes(product.tensor));
    }
  }

  async #fill(tensor: Tensor, lo: number, hi: number, turn: number): Promise<Band> {
    const { backend, sources, rounder, signal } = this.#o;
    const regions = this.#bands[turn % 2]!;
    const columns = tensor.shape.at(-1)!;
    const dtype = floatDType(tensor);
    const scale = this.#o.scaleOf.get(tensorKey(tensor)) ?? 1;
    const { rounding } = this.#roundingAt(tensor, lo);
    const stored = { region: regions.stored, dtype, scale };
    let rounded = stored;
    await backend.upload(stored.region, (hi - lo) * rowBytes(tensor), async (view) => {
      await sources.read(extentsOf(tensor, lo * columns, hi * columns), view, signal);
      if (rounding === undefined) return;
      rounded = { region: regions.rounded, dtype: rounding.to, scale: rounding.scale ?? 1 };
      const size = (view.byteLength / widthOf(dtype)) * widthOf(rounding.to);
      await backend.upload(rounded.region, size, (target) =>
        rounder.round(view, dtype, scale, rounding, target),
      );
    });
    return { lo, hi, forms: { stored, rounded } };
  }

  /** What of a band feeds one stream. */
  async #feed(
    band: Band,
    { tensor, eats, first, count }: Product,
    feed: Feed,
    from: string,
    { inputs, outputs, weights }: StreamSet,
    outWidth: number,
  ): Promise<void> {
    const lo = Math.max(band.lo, feed.from);
    const hi = Math.min(band.hi, feed.from + feed.count);
    if (lo >= hi) return;
    const { region, dtype, scale } = band.forms[weights];
    const cols = tensor.shape.at(-1)!;
    const inWidth = this.#widths[from]!;
    const p = {
      tokens: count,
      rows: hi - lo,
      cols,
      dtype,
      scale,
      firstRow: lo - band.lo,
      inWidth,
      inFrom: first * inWidth + eats,
      outWidth,
      outFrom: first * outWidth + feed.at + lo - feed.from,
    };
    await this.#o.backend.run(linear, p, [region, inputs.get(from)!], outputs.get(feed.to)!);
  }

  /** Stored elements [lo, hi) as F32 bytes, rounded first where this form wants that, and their scale applied. */
  async #wide(tensor: Tensor, lo: number, hi: number, form: StreamSet["weights"]): Promise<Uint8Array> {
    const dtype = floatDType(tensor);
    const scale = this.#o.scaleOf.get(tensorKey(tensor)) ?? 1;
    const row = Math.floor(lo / columnsOf(tensor.shape));
    const rounding = form === "rounded" ? this.#roundingAt(tensor, row).rounding : undefined;
    const stored = new Uint8Array((hi - lo) * widthOf(dtype));
    await this.#o.sources.read(extentsOf(tensor, lo, hi), stored, this.#o.signal);
    let bytes = stored;
    if (rounding !== undefined) {
      bytes = new Uint8Array((hi - lo) * widthOf(rounding.to));
      this.#o.rounder.round(stored, dtype, scale, rounding, bytes);
    }
    const wide = widen(rounding?.to ?? dtype, bytes);
    const factor = rounding === undefined ? scale : (rounding.scale ?? 1);
    if (factor !== 1) for (let i = 0; i < wide.length; i++) wide[i] = wide[i]! * factor;
    return new Uint8Array(wide.buffer);
  }

  /** How the other side stores a row, and up to which row it does so. */
  #roundingAt(
    tensor: Tensor,
    row: number,
  ): { readonly rounding: Rounding | undefined; readonly until: number } {
    const rows = this.#o.roundings.get(tensorKey(tensor)) ?? [];
    const found = rows.find(({ hi }) => row < hi);
    if (found === undefined) return { rounding: undefined, until: Infinity };
    return row < found.lo
      ? { rounding: undefined, until: found.lo }
      : { rounding: found.rounding, until: found.hi };
  }
}

function unfed(what: string, where: string): IsologitError {
  const message = `the forward pass does not find all of ${what}`;
  return new IsologitError("TENSOR_MISSING", message, { tensor: where });
}

/** Rows of a stream times all that a stored tensor feeds. */
function product({ tensor, feeds, eats }: Part, first: number, count: number): Product {
  const lo = Math.min(...feeds.map(({ from }) => from));
  const hi = Math.max(...feeds.map((feed) => feed.from + feed.count));
  return { tensor, feeds, lo, hi, eats, first, count };
}

/** Products in their order, each in the first round in which nothing else makes the same elements. */
function rounds(products: readonly Product[]): readonly (readonly Product[])[] {
  const made: Product[][] = [];
  for (const product of products) {
    const round = made.find((others) => !others.some((other) => overlap(product, other)));
    if (round === undefined) made.push([product]);
    else round.push(product);
  }
  return made;
}

function overlap(a: Product, b: Product): boolean {
  return (
    a.first === b.first &&
    a.feeds.some((mine) =>
      b.feeds.some(
        ({ to, at, count }) => to === mine.to && at < mine.at + mine.count && mine.at < at + count,
      ),
    )
  );
}

/** Rows of `inRow` elements as elements. */
function scaled({ at, from, count }: Omit<Feed, "to">, inRow: number): Omit<Feed, "to"> {
  return { at: at * inRow, from: from * inRow, count: count * inRow };
}

/** What feeds elements [lo, hi) of a stream, as of a stream that begins at lo. */
function clipped(feed: Feed, lo: number, hi: number): Feed {
  const first = Math.max(lo, feed.at);
  const count = Math.max(0, Math.min(hi, feed.at + feed.count) - first);
  return { to: feed.to, at: first - lo, from: feed.from + first - feed.at, count };
}

function floatDType(tensor: Tensor): FloatDType {
  if (isFloat(tensor.dtype)) return tensor.dtype;
  throw new IsologitError("UNSUPPORTED", `a forward pass cannot read ${tensor.dtype}`, {
    tensor: tensor.name,
  });
}

/** Bytes of one row of a matrix, or of a stack of them. */
function rowBytes({ shape, dtype }: Tensor): number {
  return columnsOf(shape) * widthOf(dtype);
}

/** Elements of a row; those of a vector are rows of their own. */
export function columnsOf(shape: Shape): number {
  return shape.length < 2 ? 1 : shape.at(-1)!;
}
