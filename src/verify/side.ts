/**
 * One side of a verification: a checkpoint that runs natively, on its own stored tensors. No layer is resident: a
 * stored matrix is read in bands, each feeds every stream of the side, and goes. No layout is imported here.
 */
import type { Backend, Region } from "../../kernels/define.ts";
import { linear } from "../../kernels/linear.ts";
import { mix } from "../../kernels/mix.ts";
import type { Tensor } from "../core/checkpoint.ts";
import { countOf, type FloatDType, isFloat, widthOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { widen } from "../core/float.ts";
import { extentsOf, type Sources } from "../core/read.ts";
import type { Dims, Feed, Forward, KernelStage, Layer, Native, Stage } from "../families/define.ts";
import type { Dealt } from "./dealing.ts";
import type { Rounding } from "./rounding.ts";
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
  readonly tensors: ReadonlyMap<string, Tensor>;
  readonly sources: Sources;
  /** the scale of an FP8 tensor; 1 where there is none */
  readonly scaleOf: ReadonlyMap<string, number>;
  /** how the other side stores what this tensor holds; absent where it is the same */
  readonly roundings: ReadonlyMap<string, Rounding>;
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
    this.#stored = new Stored(options.native, options.dims, options.tensors);
    this.#widths = options.forward.streams(options.dims);
    const widest = Math.max(...[...options.tensors.values()].map(rowBytes));
    const bytes = Math.max(options.bandBytes, widest);
    const growth = [...options.roundings].map(([name, { to }]) => {
      return widthOf(to) / widthOf(options.tensors.get(name)!.dtype);
    });
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
    return this.#stored.head;
  }

  /** The token table, [vocab, hidden]. */
  get table(): Tensor {
    return this.#stored.embedding;
  }

  /** What feeds any of `streams` at a place, and of which expert where it is of several. */
  parts(place: Place, streams: readonly string[], expert?: number): readonly Part[] {
    return this.#stored.parts(place, streams, expert);
  }

  /** The names of the stored tensors that a stage draws on to make a stream. */
  makers(stage: Stage, place: Place, stream: string, expert?: number): readonly string[] {
    const multiplies = stage.op === "linear" || stage.op === "experts";
    const drawn = stage.op === "kernel" ? stage.parameters : multiplies ? [stream] : [];
    return this.#stored.parts(place, drawn, expert).map(({ tensor }) => tensor.name);
  }

  /** The token table's rows for `ids`: [tokens, hidden] F32. */
  async embed(
    ids: readonly number[],
    weights: StreamSet["weights"],
    output: Region,
    tensor = this.table,
  ): Promise<void> {
    const hidden = tensor.shape[1]!;
    await this.#o.backend.upload(output, 4 * ids.length * hidden, async (view) => {
      for (const [t, id] of ids.entries()) {
        view.set(await this.#wide(tensor, id * hidden, (id + 1) * hidden, weights), 4 * t * hidden);
      }
    });
  }

  /**
   * Runs one stage for each set, over one reading of the weights.
   *
   * @param dealing of this layer's tokens, where its stages are of experts
   */
  async run(stage: Stage, place: Place, sets: readonly StreamSet[], dealing?: Dealt): Promise<void> {
    switch (stage.op) {
      case "kernel":
        for (const set of sets) await this.#kernel(stage, place, set, dealing);
        return;
      case "linear": {
        const products = this.#parts(place, stage.to).map((part) => product(part, 0, this.#o.tokens));
        return this.#multiply(products, stage.from, sets, place);
      }
      case "experts": {
        const products = dealing!.experts.flatMap(({ expert, from, count }) =>
          this.#parts(place, [stage.to], expert).map((part) => product(part, from, count)),
        );
        return this.#multiply(products, stage.from, sets, place);
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
    place = this.head,
  ): Promise<void> {
    const blocks = sets.map(({ inputs, weights }, i) => ({
      ...{ inputs, weights },
      outputs: new Map([["logits", outputs[i]!]]),
    }));
    const products = this.#parts(place, ["logits"]).map(({ tensor, feeds }) => {
      const within = feeds.map((feed) => clipped(feed, lo, hi));
      return product({ tensor, feeds: within }, 0, this.#o.tokens);
    });
    await this.#multiply(products, from, blocks, place, hi - lo);
  }

  /** Whether two runs of `count` elements, of one stored tensor or of two, are the same bytes. */
  async alike(a: Tensor, atA: number, b: Tensor, atB: number, count: number): Promise<boolean> {
    let same = true;
    // Through the backend, though nothing is computed: one that only counts memory has no bytes to read.
    await this.#o.backend.upload(this.#bands[0]!.stored, 0, async () => {
      const [left, right] = await Promise.all(
        [[a, atA] as const, [b, atB] as const].map(async ([tensor, at]) => {
          const bytes = Buffer.alloc(count * widthOf(tensor.dtype));
          await this.#o.sources.read(extentsOf(tensor, at, at + count), bytes, this.#o.signal);
          return bytes;
        }),
      );
      same = left!.equals(right!);
    });
    return same;
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

  /** @throws TENSOR_MISSING where they do not feed the streams whole */
  #parts(place: Place, streams: readonly string[], expert?: number): readonly Part[] {
    const parts = this.#stored.parts(place, streams, expert);
    for (const stream of streams) {
      const fed = parts.flatMap(({ feeds }) => feeds).filter(({ to }) => to === stream);
      const count = fed.reduce((sum, feed) => sum + feed.count, 0);
      if (count < this.#widths[stream]!) {
        const message = `the forward pass needs ${this.#widths[stream]} rows for ${stream}, and finds ${count}`;
        throw new IsologitError("TENSOR_MISSING", message, { tensor: place.prefix });
      }
    }
    return parts;
  }

  async #kernel(stage: KernelStage, place: Place, set: StreamSet, dealing: Dealt | undefined): Promise<void> {
    const { backend, dims, tokens, forward } = this.#o;
    const inputs = stage.from.map((name) => set.inputs.get(name)!);
    for (const name of stage.parameters) inputs.push(await this.parameter(name, place, set.weights));
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
  async parameter(name: string, place: Place, weights: StreamSet["weights"]): Promise<Region> {
    const parts = this.#stored.parts(place, [name]);
    const instead = parts.some(({ tensor }) => tensor === place.instead?.get(tensor.name));
    const key = `${instead ? "instead" : weights} ${name}`;
    const known = this.#parameters.get(key);
    if (known !== undefined) {
      if (!instead) return known;
      this.#o.backend.release(known);
    }
    const pieces = parts.flatMap(({ tensor, feeds }) => {
      const inRow = countOf(tensor.shape) / tensor.shape[0]!;
      return feeds.map(({ at, from, count }) => ({ tensor, ...scaled({ at, from, count }, inRow) }));
    });
    const length = pieces.reduce((sum, { count }) => sum + count, 0);
    if (length === 0) {
      const message = `the forward pass finds nothing for ${name}`;
      throw new IsologitError("TENSOR_MISSING", message, { tensor: place.prefix });
    }
    const region = this.#o.backend.allocate(4 * length);
    await this.#o.backend.upload(region, 4 * length, async (view) => {
      for (const { tensor, at, from, count } of pieces) {
        view.set(await this.#wide(tensor, from, from + count, weights), 4 * at);
        if (weights === "stored" && !instead) this.#o.advance(count * widthOf(tensor.dtype));
      }
    });
    this.#parameters.set(key, region);
    return region;
  }

  /** @param width of the outputs, where it is not the streams' own */
  async #multiply(
    products: readonly Product[],
    from: string,
    sets: readonly StreamSet[],
    { instead }: Place,
    width?: number,
  ): Promise<void> {
    for await (const { product, band } of this.#read(products, instead === undefined)) {
      for (const set of sets) {
        for (const feed of product.feeds) await this.#feed(band, product, feed, from, set, width);
      }
    }
  }

  /** The stored rows, a band at a time; the next is read while this one is used. */
  async *#read(
    products: readonly Product[],
    progress: boolean,
  ): AsyncGenerator<{ product: Product; band: Band }> {
    const spans = products.flatMap((product) => {
      const step = Math.max(1, Math.floor(this.#o.bandBytes / rowBytes(product.tensor)));
      const cuts = Math.ceil((product.hi - product.lo) / step);
      return Array.from({ length: cuts }, (_, i) => {
        const lo = product.lo + i * step;
        return { product, lo, hi: Math.min(product.hi, lo + step) };
      });
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
      if (progress) this.#o.advance((hi - lo) * rowBytes(product.tensor));
    }
  }

  async #fill(tensor: Tensor, lo: number, hi: number, turn: number): Promise<Band> {
    const { backend, sources, rounder, signal } = this.#o;
    const regions = this.#bands[turn % 2]!;
    const columns = tensor.shape.at(-1)!;
    const dtype = floatDType(tensor);
    const scale = this.#o.scaleOf.get(tensor.name) ?? 1;
    const rounding = this.#o.roundings.get(tensor.name);
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
    { tensor, first, count }: Product,
    feed: Feed,
    from: string,
    { inputs, outputs, weights }: StreamSet,
    width: number | undefined,
  ): Promise<void> {
    const lo = Math.max(band.lo, feed.from);
    const hi = Math.min(band.hi, feed.from + feed.count);
    if (lo >= hi) return;
    const { region, dtype, scale } = band.forms[weights];
    const cols = tensor.shape.at(-1)!;
    const outWidth = width ?? this.#widths[feed.to]!;
    const p = {
      tokens: count,
      rows: hi - lo,
      cols,
      dtype,
      scale,
      firstRow: lo - band.lo,
      inWidth: cols,
      inFrom: first * cols,
      outWidth,
      outFrom: first * outWidth + feed.at + lo - feed.from,
    };
    await this.#o.backend.run(linear, p, [region, inputs.get(from)!], outputs.get(feed.to)!);
  }

  /** Stored elements [lo, hi) as F32 bytes, rounded first where this form wants that, and their scale applied. */
  async #wide(tensor: Tensor, lo: number, hi: number, form: StreamSet["weights"]): Promise<Uint8Array> {
    const dtype = floatDType(tensor);
    const scale = this.#o.scaleOf.get(tensor.name) ?? 1;
    const rounding = form === "rounded" ? this.#o.roundings.get(tensor.name) : undefined;
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
}

/** Rows of a stream times all that a stored tensor feeds. */
function product({ tensor, feeds }: Part, first: number, count: number): Product {
  const lo = Math.min(...feeds.map(({ from }) => from));
  const hi = Math.max(...feeds.map((feed) => feed.from + feed.count));
  return { tensor, feeds, lo, hi, first, count };
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
  return (shape.at(-1) ?? 1) * widthOf(dtype);
}
