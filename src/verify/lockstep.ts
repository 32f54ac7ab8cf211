/**
 * Both sides layer by layer, door by door. Up to five runs go in step:
 *
 * - source, and own, the destination's: their distance is the quality of a recast;
 * - rounded, the source with each weight rounded as the destination stores it, and borrowed, the destination on
 *   rounded's inputs: the same arithmetic twice, so their distance is the wiring, and names the first bad door;
 * - noise, the source with BF16 activations between blocks: how far a logit may move and mean nothing.
 *
 * Where nothing is recast, rounded is the source and there is no noise; where own's inputs are the bits of
 * rounded's, own is borrowed.
 */
import type { Backend } from "../../kernels/define.ts";
import type { LayerDrift } from "../api.ts";
import type { Watch } from "../core/events.ts";
import { bitsOfF32, encodeBits, f32OfBits } from "../core/float.ts";
import type { Dims, Forward, Layer, Stage } from "../families/define.ts";
import { type Control, Controls } from "./controls.ts";
import { type Fingerprint, FingerprintTaker } from "./fingerprint.ts";
import { Distance, LogitsComparison, type LogitsSummary, relL2, sameBits } from "./metrics.ts";
import type { Place, Side, StreamSet } from "./side.ts";
import { ends, makersOf, Streams } from "./streams.ts";

export interface LockstepOptions {
  readonly backend: Backend;
  readonly forward: Forward;
  readonly dims: Dims;
  readonly layers: readonly Layer[];
  readonly ids: readonly number[];
  /** the first so many ids are text, on which the loss is measured; 0: on all */
  readonly textTokens: number;
  readonly a: Side;
  readonly b: Side;
  /** the destination stores other bits than the source */
  readonly recast: boolean;
  /** largest relative L2 at a door whose sums run over `terms` products */
  readonly limit: (terms: number) => number;
  /** words of the vocabulary are compared in blocks of at most this many bytes a run */
  readonly blockBytes: number;
  readonly watch: Watch;
  readonly signal: AbortSignal | undefined;
}

/** A stream at which the wiring exceeded its limit. Layer -1 is the embedding; one past the last is the head. */
export interface BadDoor {
  readonly layer: number;
  readonly kind: string;
  readonly door: string;
  readonly relL2: number;
  /** the destination's tensors that make what passes the door */
  readonly tensors: readonly string[];
}

export interface LockstepResult {
  readonly layers: readonly LayerDrift[];
  readonly wiring: { readonly maxRelL2: number; readonly limit: number };
  /** in order of execution */
  readonly bad: readonly BadDoor[];
  readonly logits: LogitsSummary;
  /** sabotages of the destination, and whether they were seen */
  readonly controls: readonly Control[];
  /** of the destination's own run */
  readonly fingerprint: Fingerprint;
}

/** Words of the vocabulary whose logits fit a block. */
export function blockWords(blockBytes: number, tokens: number): number {
  return Math.max(1, Math.floor(blockBytes / 4 / tokens));
}

export async function lockstep(options: LockstepOptions): Promise<LockstepResult> {
  return new Lockstep(options).run();
}

/** A block or the head: where a door lies. */
interface Where {
  readonly layer: number;
  readonly kind: string;
  readonly places: readonly [a: Place, b: Place];
}

class Lockstep {
  readonly #o: LockstepOptions;
  readonly #widths: Readonly<Record<string, number>>;
  readonly #source: Streams;
  readonly #rounded: Streams;
  readonly #noise: Streams | undefined;
  readonly #own: Streams;
  readonly #borrowed: Streams;
  /** the runs that keep a residual stream of their own */
  readonly #runs: readonly Streams[];
  /** streams of which own has the bits of rounded */
  readonly #inStep = new Set<string>();
  readonly #bad: BadDoor[] = [];
  readonly #wiring = { maxRelL2: 0, limit: 0 };
  readonly #controls: Controls;
  readonly #taker: FingerprintTaker;
  /** kinds of layers, of which the first is run once more with sabotages */
  readonly #sabotaged = new Set<string>();

  constructor(options: LockstepOptions) {
    this.#o = options;
    this.#widths = options.forward.streams(options.dims);
    const streams = () => new Streams(options.backend, this.#widths, options.ids.length);
    this.#source = streams();
    this.#own = streams();
    this.#borrowed = streams();
    this.#rounded = options.recast ? streams() : this.#source;
    this.#noise = options.recast ? streams() : undefined;
    this.#runs = [
      this.#source,
      this.#own,
      ...(this.#noise === undefined ? [] : [this.#rounded, this.#noise]),
    ];
    this.#controls = new Controls({ ...options, side: options.b });
    this.#taker = new FingerprintTaker(options.ids.length);
  }

  async run(): Promise<LockstepResult> {
    const { layers, forward, a, b, watch, signal } = this.#o;
    await this.#embed();
    const drifts: LayerDrift[] = [];
    for (const { index, kind } of layers) {
      const where: Where = { layer: index, kind, places: [a.layer(index, kind), b.layer(index, kind)] };
      const stages = forward.block(kind);
      let localRelL2 = 0;
      for (const [i, stage] of stages.entries()) {
        signal?.throwIfAborted();
        localRelL2 = Math.max(localRelL2, await this.#stage(stage, where));
        for (const run of this.#runs) run.releaseUnused(stages, i);
      }
      this.#sabotaged.add(kind);
      await this.#addResidual();
      a.forget();
      b.forget();
      const own = await this.#own.view("residual");
      const driftRelL2 = relL2(await this.#source.view("residual"), own);
      this.#taker.residual(own);
      drifts.push({ layer: index, kind, driftRelL2, localRelL2 });
      watch({ type: "layer", layer: index, of: layers.length, kind });
    }
    const logits = await this.#head();
    const controls = this.#controls.results;
    const fingerprint = this.#taker.finish(this.#o.backend.id);
    return { layers: drifts, wiring: this.#wiring, bad: this.#bad, logits, controls, fingerprint };
  }

  async #embed(): Promise<void> {
    const { a, b, ids } = this.#o;
    for (const run of this.#runs) {
      run.make(["residual"]);
      const weights = run === this.#rounded && this.#o.recast ? "rounded" : "stored";
      await (run === this.#own ? b : a).embed(ids, weights, run.regions.get("residual")!);
    }
    const where = { layer: -1, kind: "embedding" };
    await this.#door("residual", this.#own, 1, { ...where, tensors: [b.table.name] });
    this.#taker.residual(await this.#own.view("residual"));
    await this.#controls.embed({ ...where, limit: this.#o.limit(1) }, this.#rounded.regions.get("residual")!);
  }

  /** Runs a stage on both sides. @returns the worst door's distance */
  async #stage(stage: Stage, { places, ...where }: Where): Promise<number> {
    const { a, b } = this.#o;
    const { reads, makes } = ends(stage);
    const borrows = !reads.every((name) => this.#inStep.has(name));
    for (const run of this.#runs) run.make(makes);
    if (borrows) this.#borrowed.make(makes);
    await a.run(stage, places[0], this.#setsOfA());
    await b.run(stage, places[1], this.#setsOfB(borrows));
    const terms = Math.max(...reads.map((name) => this.#widths[name]!));
    let worst = 0;
    for (const name of makes) {
      const at = { ...where, tensors: makersOf(stage, name, places[1], this.#o.dims) };
      worst = Math.max(worst, await this.#door(name, borrows ? this.#borrowed : this.#own, terms, at));
    }
    this.#borrowed.releaseAll();
    if (!this.#sabotaged.has(where.kind)) {
      await this.#controls.stage({ ...where, limit: this.#o.limit(terms) }, stage, places[1], this.#rounded);
    }
    return worst;
  }

  #setsOfA(): readonly StreamSet[] {
    if (this.#noise === undefined) return [this.#source.set()];
    return [this.#source.set(), this.#rounded.set("rounded"), this.#noise.set()];
  }

  #setsOfB(borrows: boolean): readonly StreamSet[] {
    return [this.#own.set(), ...(borrows ? [this.#borrowed.set("stored", this.#rounded)] : [])];
  }

  /** Wiring at one door: rounded against the other side on rounded's inputs. */
  async #door(
    stream: string,
    theirs: Streams,
    terms: number,
    where: Omit<BadDoor, "door" | "relL2">,
  ): Promise<number> {
    const expected = await this.#rounded.view(stream);
    const distance = relL2(expected, await theirs.view(stream));
    if (sameBits(expected, await this.#own.view(stream))) this.#inStep.add(stream);
    else this.#inStep.delete(stream);
    this.#judge(distance, terms, { ...where, door: stream });
    return distance;
  }

  #judge(distance: number, terms: number, where: Omit<BadDoor, "relL2">): void {
    const limit = this.#o.limit(terms);
    this.#wiring.limit = Math.max(this.#wiring.limit, limit);
    this.#wiring.maxRelL2 = Math.max(this.#wiring.maxRelL2, distance);
    if (!(distance <= limit)) this.#bad.push({ ...where, relL2: distance });
  }

  async #addResidual(): Promise<void> {
    for (const run of this.#runs) await run.addResidual();
    if (!this.#inStep.has("out")) this.#inStep.delete("residual");
    if (this.#noise === undefined) return;
    // The residual stream as a BF16 run would keep it.
    const rounded = Float32Array.from(await this.#noise.view("residual"), (value) =>
      f32OfBits((encodeBits("BF16", bitsOfF32(value)) << 16) >>> 0),
    );
    await this.#o.backend.upload(this.#noise.regions.get("residual")!, rounded.byteLength, (view) =>
      view.set(new Uint8Array(rounded.buffer)),
    );
  }

  async #head(): Promise<LogitsSummary> {
    const { forward, layers, a, b, backend, dims, ids } = this.#o;
    const where: Where = { layer: layers.length, kind: "head", places: [a.head, b.head] };
    const [last, ...before] = [...forward.head].reverse();
    for (const stage of before.reverse()) await this.#stage(stage, where);
    const from = ends(last!).reads[0]!;
    const borrows = !this.#inStep.has(from);
    const [setsA, setsB] = [this.#setsOfA(), this.#setsOfB(borrows)];
    const width = Math.min(dims.vocab!, blockWords(this.#o.blockBytes, ids.length));
    const block = () => backend.allocate(4 * ids.length * width);
    const [blocksA, blocksB] = [setsA.map(block), setsB.map(block)];
    const quality = new LogitsComparison(ids, this.#o.textTokens || ids.length);
    const [wiring, noise] = [new Distance(ids.length), new Distance(ids.length)];
    for (let lo = 0; lo < dims.vocab!; lo += width) {
      const hi = Math.min(dims.vocab!, lo + width);
      await a.logits(from, lo, hi, setsA, blocksA);
      await b.logits(from, lo, hi, setsB, blocksB);
      const values = (regions: typeof blocksA) =>
        Promise.all(regions.map((region) => backend.view(region, ids.length * (hi - lo))));
      const [source, rounded, noisy] = await values(blocksA);
      const [own, borrowed] = await values(blocksB);
      quality.add(lo, hi - lo, source!, own!);
      this.#taker.logits(lo, hi - lo, own!);
      wiring.add(rounded ?? source!, borrowed ?? own!);
      if (lo === 0) {
        const spot = { layer: where.layer, kind: where.kind, limit: this.#o.limit(this.#widths[from]!) };
        await this.#controls.logits(spot, from, hi, this.#rounded, rounded ?? source!);
      }
      noise.add(source!, noisy ?? source!);
    }
    for (const region of [...blocksA, ...blocksB]) backend.release(region);
    for (const run of this.#runs) run.releaseAll();
    const { layer, kind } = where;
    const tensors = makersOf(last!, "logits", b.head, dims);
    this.#judge(wiring.relL2, this.#widths[from]!, { layer, kind, door: "logits", tensors });
    return quality.summary(Number.isFinite(noise.maxAbs) ? noise.maxAbs : 0);
  }
}
