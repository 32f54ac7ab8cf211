/**
 * One side of a verification: a checkpoint that runs natively, on its own stored tensors. No layer is resident: a
 * stored matrix is read in bands, each feeds every stream of the side, and goes. No layout is imported here.
 */
import type { Backend, Region } from "../../kernels/define.ts";
import { linear } from "../../kernels/linear.ts";
import type { Tensor } from "../core/checkpoint.ts";
import { countOf, type FloatDType, isFloat, widthOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { widen } from "../core/float.ts";
import { extentsOf, type Sources } from "../core/read.ts";
import type { Dims, Feed, Forward, Native, Stage, Use } from "../families/define.ts";
import type { Exchange } from "./exchange.ts";
import type { Rounding } from "./rounding.ts";

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

/** Where a layer's stored tensors are: their prefix and their parts. */
export interface Place {
  readonly prefix: string;
  readonly uses: readonly Use[];
  /** read in place of the stored tensor of its name; such a reading is a repetition and no progress */
  readonly instead?: Tensor;
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
  /** two, so that one is read while the other is used */
  readonly #bands: readonly { readonly stored: Region; readonly rounded: Region }[];
  readonly #widths: Readonly<Record<string, number>>;
  readonly #parameters = new Map<string, { readonly tensor: Tensor; readonly region: Region }>();

  constructor(options: SideOptions) {
    this.#o = options;
    this.#widths = options.forward.streams(options.dims);
    const widest = Math.max(...[...options.tensors.values()].map(rowBytes));
    const bytes = Math.max(options.bandBytes, widest);
    const growth = [...options.roundings].map(([name, { to }]) => {
      return widthOf(to) / widthOf(this.#tensor(name).dtype);
    });
    this.#bands = [0, 1].map(() => ({
      stored: options.backend.allocate(bytes),
      rounded: options.backend.allocate(bytes * Math.max(0, ...growth)),
    }));
  }

  layer(index: number, kind: keyof Native["uses"]): Place {
    const { native } = this.#o;
    return { prefix: native.prefix.replace("{layer}", String(index)), uses: native.uses[kind] };
  }

  get head(): Place {
    return { prefix: "", uses: this.#o.native.uses.head };
  }

  /** The token table, [vocab, hidden]. */
  get table(): Tensor {
    const { embedding } = this.#o.native;
    return this.#tensor(embedding.find((name) => this.#o.tensors.has(name)) ?? embedding[0]!);
  }

  /** The token table's rows for `ids`: [tokens, hidden] F32. */
  async embed(
    ids: readonly number[],
    weights: StreamSet["weights"],
    output: Region,
    tensor = this.table,
  ): Promise<void> {
    const hidden = tensor.shape[1]!;
    const read = async (rows: Uint8Array) => {
      for (const [t, id] of ids.entries()) {
        const target = rows.subarray(t * rowBytes(tensor), (t + 1) * rowBytes(tensor));
        await this.#o.sources.read(extentsOf(tensor, id * hidden, (id + 1) * hidden), target, this.#o.signal);
      }
    };
    await this.#uploadWide(tensor, ids.length * hidden, read, weights, output);
  }

  /** Runs one stage for each set, over one reading of the weights. */
  async run(stage: Stage, place: Place, sets: readonly StreamSet[]): Promise<void> {
    if (stage.op === "kernel") {
      for (const set of sets) await this.#kernel(stage, place, set);
      return;
    }
    for (const use of place.uses) {
      const feeds = use.feeds(this.#o.dims).filter((feed) => stage.to.includes(feed.to));
      if (feeds.length === 0) continue;
      const tensor = this.tensor(use, place);
      for await (const band of this.#read(tensor, 0, tensor.shape[0]!, tensor !== place.instead)) {
        for (const set of sets) {
          for (const feed of feeds) {
            const to = { region: set.outputs.get(feed.to)!, width: this.#widths[feed.to]!, from: 0 };
            await this.#multiply(band, set, tensor, feed, set.inputs.get(stage.from)!, to);
          }
        }
      }
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
    for (const use of place.uses) {
      for (const feed of use.feeds(this.#o.dims)) {
        if (feed.to !== "logits") continue;
        const tensor = this.tensor(use, place);
        const shift = feed.from - feed.at;
        const first = Math.max(lo + shift, feed.from);
        const last = Math.min(hi + shift, feed.from + feed.count);
        for await (const band of this.#read(tensor, first, last, tensor !== place.instead)) {
          for (const [i, set] of sets.entries()) {
            const part = { ...feed, from: first, at: 0, count: last - first };
            const to = { region: outputs[i]!, width: hi - lo, from: first - shift - lo };
            await this.#multiply(band, set, tensor, part, set.inputs.get(from)!, to);
          }
        }
      }
    }
  }

  /** Lets a layer's vectors go. */
  forget(): void {
    for (const { region } of this.#parameters.values()) this.#o.backend.release(region);
    this.#parameters.clear();
  }

  close(): void {
    this.forget();
    for (const { stored, rounded } of this.#bands) {
      this.#o.backend.release(stored);
      this.#o.backend.release(rounded);
    }
  }

  async #kernel(stage: Stage & { op: "kernel" }, place: Place, set: StreamSet): Promise<void> {
    const { backend, dims, tokens } = this.#o;
    const inputs = stage.from.map((name) => set.inputs.get(name)!);
    for (const name of stage.parameters) inputs.push(await this.parameter(name, place, set.weights));
    await stage.run(backend, dims, tokens, inputs, set.outputs.get(stage.to)!);
  }

  /** A vector, widened to F32, from the stored tensors whose rows feed it; kept until `forget`. */
  async parameter(name: string, place: Place, weights: StreamSet["weights"]): Promise<Region> {
    for (const use of place.uses) {
      const feed = use.feeds(this.#o.dims).find((one) => one.to === name);
      if (feed === undefined) continue;
      const tensor = this.tensor(use, place);
      const instead = tensor === place.instead;
      const key = `${instead ? "instead" : weights} ${name}`;
      const known = this.#parameters.get(key);
      if (known?.tensor === tensor) return known.region;
      if (known !== undefined) this.#o.backend.release(known.region);
      const inRow = countOf(tensor.shape) / tensor.shape[0]!;
      const extents = extentsOf(tensor, feed.from * inRow, (feed.from + feed.count) * inRow);
      const region = this.#o.backend.allocate(4 * feed.count * inRow);
      const read = (bytes: Uint8Array) => this.#o.sources.read(extents, bytes, this.#o.signal);
      await this.#uploadWide(tensor, feed.count * inRow, read, weights, region);
      if (weights === "stored" && !instead) this.#o.advance(feed.count * rowBytes(tensor));
      this.#parameters.set(key, { tensor, region });
      return region;
    }
    throw new IsologitError("INTERNAL", `no stored tensor of this dialect feeds ${name}`);
  }

  /** Rows [lo, hi) of a stored matrix, a band at a time; the next is read while this one is used. */
  async *#read(tensor: Tensor, lo: number, hi: number, progress: boolean): AsyncGenerator<Band> {
    const step = Math.max(1, Math.floor(this.#o.bandBytes / rowBytes(tensor)));
    let next = this.#fill(tensor, lo, Math.min(hi, lo + step), 0);
    for (let from = lo, turn = 1; from < hi; from += step, turn++) {
      const band = await next;
      if (band.hi < hi) next = this.#fill(tensor, band.hi, Math.min(hi, band.hi + step), turn);
      next.catch(() => {}); // awaited above; a consumer that stops early must not leave it unhandled
      yield band;
      if (progress) this.#o.advance((band.hi - band.lo) * rowBytes(tensor));
    }
  }

  async #fill(tensor: Tensor, lo: number, hi: number, turn: number): Promise<Band> {
    const { backend, sources, rounder, signal } = this.#o;
    const regions = this.#bands[turn % 2]!;
    const columns = countOf(tensor.shape) / tensor.shape[0]!;
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

  async #multiply(
    band: Band,
    set: StreamSet,
    tensor: Tensor,
    feed: Feed,
    x: Region,
    to: { region: Region; width: number; from: number },
  ): Promise<void> {
    const lo = Math.max(band.lo, feed.from);
    const hi = Math.min(band.hi, feed.from + feed.count);
    if (lo >= hi) return;
    const { region, dtype, scale } = band.forms[set.weights];
    const columns = tensor.shape[1]!;
    const p = {
      tokens: this.#o.tokens,
      rows: hi - lo,
      cols: columns,
      dtype,
      scale,
      firstRow: lo - band.lo,
      inWidth: columns,
      inFrom: 0,
      outWidth: to.width,
      outFrom: to.from + feed.at + lo - feed.from,
    };
    await this.#o.backend.run(linear, p, [region, x], to.region);
  }

  /** `count` stored elements to F32, rounded first where this set wants that, and their scale applied. */
  async #uploadWide(
    tensor: Tensor,
    count: number,
    read: (stored: Uint8Array) => Promise<void>,
    form: StreamSet["weights"],
    region: Region,
  ): Promise<void> {
    const dtype = floatDType(tensor);
    const scale = this.#o.scaleOf.get(tensor.name) ?? 1;
    const rounding = form === "rounded" ? this.#o.roundings.get(tensor.name) : undefined;
    await this.#o.backend.upload(region, 4 * count, async (view) => {
      const stored = new Uint8Array(count * widthOf(dtype));
      await read(stored);
      let bytes = stored;
      if (rounding !== undefined) {
        bytes = new Uint8Array(count * widthOf(rounding.to));
        this.#o.rounder.round(stored, dtype, scale, rounding, bytes);
      }
      const wide = widen(rounding?.to ?? dtype, bytes);
      const factor = rounding === undefined ? scale : (rounding.scale ?? 1);
      if (factor !== 1) for (let i = 0; i < wide.length; i++) wide[i] = wide[i]! * factor;
      view.set(new Uint8Array(wide.buffer));
    });
  }

  /** The stored tensor of a use, or what is read in its place. */
  tensor({ name }: Use, { prefix, instead }: Place): Tensor {
    return instead?.name === prefix + name ? instead : this.#tensor(prefix + name);
  }

  /** Whether two blocks of a stored tensor, rows or columns, are the same bytes. */
  async alike(tensor: Tensor, { axis, a, b, count }: Exchange): Promise<boolean> {
    const columns = countOf(tensor.shape) / tensor.shape[0]!;
    const [rows, inRow, step] = axis === 0 ? [count, columns, columns] : [tensor.shape[0]!, count, columns];
    const size = inRow * widthOf(tensor.dtype);
    let same = true;
    // Through the backend, though nothing is computed: one that only counts memory has no bytes to read.
    await this.#o.backend.upload(this.#bands[0]!.stored, 0, async () => {
      const [left, right] = [new Uint8Array(size), new Uint8Array(size)];
      for (let row = 0; row < rows && same; row++) {
        for (const [at, target] of [[a, left] as const, [b, right] as const]) {
          const lo = axis === 0 ? (at + row) * step : row * step + at;
          await this.#o.sources.read(extentsOf(tensor, lo, lo + inRow), target, this.#o.signal);
        }
        same = Buffer.from(left).equals(right);
      }
    });
    return same;
  }

  #tensor(name: string): Tensor {
    const tensor = this.#o.tensors.get(name);
    if (tensor === undefined)
      throw new IsologitError("TENSOR_MISSING", "the forward pass needs it", { tensor: name });
    return tensor;
  }
}

function floatDType(tensor: Tensor): FloatDType {
  if (isFloat(tensor.dtype)) return tensor.dtype;
  throw new IsologitError("UNSUPPORTED", `a forward pass cannot read ${tensor.dtype}`, {
    tensor: tensor.name,
  });
}

/** Bytes of one index of the first axis. */
function rowBytes(tensor: Tensor): number {
  const rows = tensor.shape[0] ?? 1;
  return rows === 0 ? 0 : (countOf(tensor.shape) / rows) * widthOf(tensor.dtype);
}
