/**
 * One side of a verification: a checkpoint that runs natively, on its own stored tensors. No layer is resident: a
 * stored matrix is read in bands, each feeds every stream of the side, and goes. No layout is imported here.
 */
import { add, linear, mix } from "../../kernels/index.ts";
import type { Region } from "../../kernels/kernel.ts";
import { type Tensor, tensorKey } from "../core/checkpoint.ts";
import { countOf, widthOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import type { Forward, KernelStage, Native, OutputRows, Stage } from "../families/forward.ts";
import type { Dims, Layer } from "../families/structure.ts";
import type { DispatchedRows } from "./expert-rows.ts";
import { groupByOutput, type MatmulTask, matmulTask, matmulTasksWithin } from "./products.ts";
import { type BlockNames, TensorLookup, type TensorUse } from "./tensor-lookup.ts";
import { type BandData, Weights, type WeightsOptions, type WeightVersion } from "./weight-bands.ts";

/** Streams by name: what a stage reads, and where it puts what it makes. */
export interface StreamSet {
  readonly inputs: Map<string, Region>;
  readonly outputs: Map<string, Region>;
  /** the weights to run on */
  readonly weights: WeightVersion;
}

export interface RunnerOptions extends WeightsOptions {
  readonly forward: Forward;
  readonly native: Native;
  readonly dims: Dims;
  readonly tokens: number;
}

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

  layer(layer: Layer): BlockNames {
    return this.#stored.layer(layer);
  }

  step(end: "mtpStart" | "mtpEnd", layer: Layer): BlockNames {
    return this.#stored.step(end, layer);
  }

  get head(): BlockNames {
    return this.#stored.outside("head");
  }

  /** The token table, [vocab, hidden], in the parts that ranks have of it. */
  get tables(): readonly TensorUse[] {
    return this.#stored.parts(this.#stored.outside("embedding"), ["vocabulary"]);
  }

  /** What feeds any of `streams` (default: anything) at a place, and of which expert where it is of several. */
  parts(place: BlockNames, streams?: readonly string[], expert?: number): readonly TensorUse[] {
    return this.#stored.parts(place, streams, expert);
  }

  /** The keys of the stored tensors that a stage draws on to make a stream. */
  makers(stage: Stage, place: BlockNames, stream: string, expert?: number): readonly string[] {
    const multiplies = stage.op === "linear" || stage.op === "experts";
    const drawn = stage.op === "kernel" ? stage.parameters : multiplies ? [stream] : [];
    return this.#stored.parts(place, drawn, expert).map(({ tensor }) => tensorKey(tensor));
  }

  /**
   * The token table's rows for `ids`: [tokens, hidden] F32.
   *
   * @param instead read in place of the stored tensors of these keys
   */
  async embed(
    ids: readonly number[],
    weights: WeightVersion,
    output: Region,
    instead: ReadonlyMap<string, Tensor> = new Map(),
  ): Promise<void> {
    const parts = this.#stored.parts({ ...this.#stored.outside("embedding"), instead }, ["vocabulary"]);
    const rows = parts.flatMap(({ tensor, outputs }) => outputs.map((feed) => ({ tensor, ...feed })));
    const hidden = parts[0]?.tensor.shape.at(-1) ?? 0;
    await this.#o.backend.upload(output, 4 * ids.length * hidden, async (view) => {
      for (const [t, id] of ids.entries()) {
        const found = rows.find(({ at, count }) => id >= at && id < at + count);
        if (found === undefined) throw unfed("word", `${id}`);
        const from = (found.from + id - found.at) * hidden;
        view.set(await this.#weights.wide(found.tensor, from, from + hidden, weights), 4 * t * hidden);
      }
    });
  }

  /** In which columns a stage's sums fall apart, where they do: two sides that are alike here sum in one order. */
  cuts(stage: Stage, place: BlockNames): string {
    if (stage.op !== "linear" && stage.op !== "experts") return "";
    const parts = this.#stored.parts(place, [stage.to].flat());
    return [...new Set(parts.map(({ inputOffset }) => inputOffset))].sort((a, b) => a - b).join();
  }

  /**
   * Runs one stage for each set, over one reading of the weights.
   *
   * @param dealing of this layer's tokens, where its stages are of experts
   */
  async run(
    stage: Stage,
    place: BlockNames,
    sets: readonly StreamSet[],
    dealing?: DispatchedRows,
  ): Promise<void> {
    switch (stage.op) {
      case "kernel":
        for (const set of sets) await this.#kernel(stage, place, set, dealing);
        return;
      case "linear": {
        const parts = this.#stored.parts(place, stage.to);
        this.#refuseUnfed(parts, stage.from, stage.to, place);
        const products = parts.map((part) => matmulTask(part, 0, this.#o.tokens));
        return this.#multiply(products, stage.from, this.#o.tokens, sets, place);
      }
      case "experts": {
        const products = dealing!.experts.flatMap(({ expert, from, count }) => {
          const parts = this.#stored.parts(place, [stage.to], expert);
          this.#refuseUnfed(parts, stage.from, [stage.to], place);
          return parts.map((part) => matmulTask(part, from, count));
        });
        return this.#multiply(products, stage.from, dealing!.rows, sets, place);
      }
      case "dispatch":
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
      case "combine":
        for (const { inputs, outputs } of sets) {
          const { rows: sources, perToken: terms, rowOf } = dealing!;
          const p = { rows: this.#o.tokens, sources, terms, width: this.#widths[stage.to]! };
          const operands = [inputs.get(stage.from)!, rowOf, inputs.get(stage.weights)!];
          await this.#o.backend.run(mix, p, operands, outputs.get(stage.to)!);
        }
        return;
      case "concat":
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
    const parts = this.#stored.parts(place, ["logits"]);
    this.#refuseUnfed(parts, from, ["logits"], place);
    const products = matmulTasksWithin(parts, lo, hi, this.#o.tokens);
    await this.#weights.eachBand(products, place.instead === undefined, async (product, band) => {
      for (const block of blocks) {
        for (const feed of product.outputs) await this.#feed(band, product, feed, from, block, hi - lo);
      }
    });
  }

  /** Whether two runs of `count` elements, of one stored tensor or of two, are the same values. */
  alike(a: Tensor, atA: number, b: Tensor, atB: number, count: number): Promise<boolean> {
    return this.#weights.alike(a, atA, b, atB, count);
  }

  /** Lets a layer's vectors go. */
  forget(): void {
    for (const region of this.#parameters.values()) this.#o.backend.release(region);
    this.#parameters.clear();
  }

  close(): void {
    this.forget();
    this.#weights.close();
  }

  /** @throws TENSOR_MISSING where not every row of the streams is a product with all of the input */
  #refuseUnfed(
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
      if (area !== this.#widths[stream]! * this.#widths[from]!) throw unfed(stream, place.prefix);
    }
  }

  async #kernel(
    stage: KernelStage,
    place: BlockNames,
    set: StreamSet,
    dealing: DispatchedRows | undefined,
  ): Promise<void> {
    const { backend, dims, tokens, forward } = this.#o;
    const inputs = stage.from.map((name) => set.inputs.get(name)!);
    for (const name of stage.parameters) inputs.push(await this.parameter(name, place, set.weights));
    const rows = forward.dispatched.includes(stage.to) ? dealing!.rows : tokens;
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
  async parameter(name: string, place: BlockNames, weights: WeightVersion): Promise<Region> {
    const parts = this.#stored.parts(place, [name]);
    const instead = parts.some(({ tensor }) => tensor === place.instead?.get(tensorKey(tensor)));
    const key = `${instead ? "instead" : weights} ${name}`;
    const known = this.#parameters.get(key);
    if (known !== undefined) {
      if (!instead) return known;
      this.#o.backend.release(known);
    }
    const pieces = parts.flatMap(({ tensor, outputs }) => {
      const inRow = countOf(tensor.shape) / tensor.shape[0]!;
      return outputs.map(({ at, from, count }) => ({ tensor, ...scaled({ at, from, count }, inRow) }));
    });
    const length = pieces.reduce((sum, { count }) => sum + count, 0);
    if (length === 0) throw unfed(name, place.prefix);
    const region = this.#o.backend.allocate(4 * length);
    await this.#o.backend.upload(region, 4 * length, async (view) => {
      for (const { tensor, at, from, count } of pieces) {
        view.set(await this.#weights.wide(tensor, from, from + count, weights), 4 * at);
        if (weights === "stored" && !instead) this.#o.advance(count * widthOf(tensor.dtype));
      }
    });
    this.#parameters.set(key, region);
    return region;
  }

  /** Where ranks share a matrix out by columns, their partial sums are added in the order of ranks. */
  async #multiply(
    products: readonly MatmulTask[],
    from: string,
    rows: number,
    sets: readonly StreamSet[],
    { instead }: BlockNames,
  ): Promise<void> {
    const { backend } = this.#o;
    for (const [turn, round] of groupByOutput(products).entries()) {
      const names = [...new Set(round.flatMap(({ outputs }) => outputs.map(({ to }) => to)))];
      const partial = (name: string) => backend.allocate(4 * rows * this.#widths[name]!);
      const targets = sets.map((set) =>
        turn === 0 ? set : { ...set, outputs: new Map(names.map((name) => [name, partial(name)])) },
      );
      await this.#weights.eachBand(round, instead === undefined, async (product, band) => {
        for (const set of targets) {
          for (const feed of product.outputs)
            await this.#feed(band, product, feed, from, set, this.#widths[feed.to]!);
        }
      });
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

  /** What of a band feeds one stream. */
  async #feed(
    band: BandData,
    { tensor, inputOffset, first, count }: MatmulTask,
    feed: OutputRows,
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
      inFrom: first * inWidth + inputOffset,
      outWidth,
      outFrom: first * outWidth + feed.at + lo - feed.from,
    };
    await this.#o.backend.run(linear, p, [region, inputs.get(from)!], outputs.get(feed.to)!);
  }
}

function unfed(what: string, where: string): IsologitError {
  const message = `the forward pass does not find all of ${what}`;
  return new IsologitError("TENSOR_MISSING", message, { tensor: where });
}

/** Rows of `inRow` elements as elements. */
function scaled({ at, from, count }: Omit<OutputRows, "to">, inRow: number): Omit<OutputRows, "to"> {
  return { at: at * inRow, from: from * inRow, count: count * inRow };
}
