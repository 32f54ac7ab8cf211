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
 *
 * Experts are chosen by the source for all of them, since a tie may fall either way and another expert is another
 * function; what own would have chosen is counted. Every expert computes a row, chosen or not.
 */
import type { Backend } from "../../kernels/kernel.ts";
import { tensorKey } from "../core/checkpoint.ts";
import { Distance, relL2, sameBits } from "../core/distance.ts";
import { IsologitError } from "../core/errors.ts";
import type { Watch } from "../core/events.ts";
import { bitsOfF32, encodeBits, f32OfBits } from "../core/float.ts";
import type { ExpertChoice, Forward, Stage } from "../families/forward.ts";
import type { Dims, Layer } from "../families/structure.ts";
import { Streams, stageStreams } from "../inference/activations.ts";
import { ExpertRows } from "../inference/expert-rows.ts";
import { type Fingerprint, FingerprintTaker } from "../inference/fingerprint.ts";
import { blockWords } from "../inference/memory.ts";
import type { ModelRunner, StreamSet } from "../inference/runner.ts";
import type { BlockNames } from "../inference/tensor-lookup.ts";
import { type Control, Controls } from "./controls/controls.ts";
import { wiringLimit } from "./limits.ts";
import { LogitsComparison, type LogitsSummary } from "./metrics.ts";
import type { LayerDrift } from "./report.ts";

export interface LockstepOptions {
  readonly backend: Backend;
  readonly forward: Forward;
  readonly dims: Dims;
  readonly layers: readonly Layer[];
  readonly ids: readonly number[];
  /** the first so many ids are text, on which the loss is measured; 0: on all */
  readonly textTokens: number;
  readonly a: ModelRunner;
  readonly b: ModelRunner;
  /** the destination stores other bits than the source */
  readonly recast: boolean;
  /** words of the vocabulary are compared in blocks of at most this many bytes a run */
  readonly blockBytes: number;
  readonly watch: Watch;
  readonly signal: AbortSignal | undefined;
}

/**
 * A stream at which the wiring exceeded its limit. Layer -1 is the embedding; one past the last is the head, and
 * prediction layers follow it.
 */
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
  /** tokens for which a layer's own choice of experts is not the source's */
  readonly flips: number;
  /** no sum ran in another order on one side */
  readonly inOrder: boolean;
  readonly logits: LogitsSummary;
  /** sabotages of the destination, and whether they were seen */
  readonly controls: readonly Control[];
  /** of the destination's own run */
  readonly fingerprint: Fingerprint;
}

export async function lockstep(options: LockstepOptions): Promise<LockstepResult> {
  return new Lockstep(options).run();
}

/** A block, a prediction step's end or the head. */
interface Where {
  readonly layer: number;
  readonly kind: string;
  /** the block's kind, or which other part of a model it is: the first of each is sabotaged; null: not here */
  readonly part: string | null;
  readonly places: readonly [a: BlockNames, b: BlockNames];
}

type Door = Pick<Where, "layer" | "kind">;

class Lockstep {
  readonly #o: LockstepOptions;
  readonly #widths: Readonly<Record<string, number>>;
  readonly #source: Streams;
  readonly #recastSource: Streams;
  readonly #noise: Streams | undefined;
  readonly #destination: Streams;
  readonly #destinationOnSourceInputs: Streams;
  /** the runs that keep a residual stream of their own */
  readonly #runs: readonly Streams[];
  /** streams of which own has the bits of rounded */
  readonly #inStep = new Set<string>();
  readonly #bad: BadDoor[] = [];
  readonly #drifts: LayerDrift[] = [];
  #flips = 0;
  #inOrder = true;
  #dealing: ExpertRows | undefined;
  readonly #wiring = { maxRelL2: 0, limit: 0 };
  readonly #controls: Controls;
  readonly #taker: FingerprintTaker;
  /** of rounded, the streams that are all zeros, and rightly so */
  readonly #dark = new Set<string>();
  /** of rounded, the streams that are all zeros */
  readonly #zeros = new Set<string>();

  constructor(options: LockstepOptions) {
    this.#o = options;
    this.#widths = options.forward.streams(options.dims);
    const { forward, backend, ids } = options;
    const rowsOf = (name: string) => (forward.dispatched.includes(name) ? this.#dealing!.rows : ids.length);
    const lengthOf = (name: string) => rowsOf(name) * this.#widths[name]!;
    const streams = () => new Streams(backend, lengthOf);
    this.#controls = new Controls({ ...options, side: options.b, lengthOf });
    this.#taker = new FingerprintTaker(ids.length);
    this.#source = streams();
    this.#destination = streams();
    this.#destinationOnSourceInputs = streams();
    this.#recastSource = options.recast ? streams() : this.#source;
    this.#noise = options.recast ? streams() : undefined;
    this.#runs = [
      this.#source,
      this.#destination,
      ...(this.#noise === undefined ? [] : [this.#recastSource, this.#noise]),
    ];
  }

  async run(): Promise<LockstepResult> {
    const { layers } = this.#o;
    const main = layers.filter(({ stack }) => stack === "main");
    await this.#embed("residual", this.#o.ids, { layer: -1, kind: "embedding" });
    for (const layer of main) await this.#block(layer, layer.index);
    const logits = await this.#head(main.length);
    for (const layer of layers) if (layer.stack === "mtp") await this.#mtpLayer(layer, main.length + 1);
    for (const run of this.#runs) run.releaseAll();
    const [wiring, bad, flips, inOrder] = [this.#wiring, this.#bad, this.#flips, this.#inOrder];
    const controls = this.#controls.results;
    const fingerprint = this.#taker.finish(this.#o.backend.id);
    return { layers: this.#drifts, wiring, bad, flips, inOrder, logits, controls, fingerprint };
  }

  /** A block and its residual; `number` says where the layer comes among all. */
  async #block(layer: Layer, number: number): Promise<void> {
    const { layers, forward, dims, a, b, watch } = this.#o;
    const { kind } = layer;
    const where: Where = {
      layer: number,
      kind,
      part: this.#partOf(layer),
      places: [a.layer(layer), b.layer(layer)],
    };
    const localRelL2 = await this.#stages(forward.block(kind, dims), where);
    await this.#addResidual();
    const own = await this.#destination.view("residual");
    const driftRelL2 = relL2(await this.#source.view("residual"), own);
    if (layer.stack === "main") this.#taker.residual(own);
    this.#drifts.push({ layer: number, kind, driftRelL2, localRelL2 });
    watch({ type: "layer", layer: number, of: layers.length, kind });
  }

  /**
   * A layer that predicts a word further on. The first of a step reads the last hidden state; nothing is made of what
   * the last one predicts, but every door is compared.
   */
  async #mtpLayer(layer: Layer, first: number): Promise<void> {
    const { forward, a, b, ids } = this.#o;
    const { mtp } = forward;
    if (mtp === undefined)
      throw new IsologitError("INTERNAL", "the family lists prediction layers but not how they run");
    const number = first + layer.index;
    const where = (end: "mtpStart" | "mtpEnd"): Where => ({
      layer: number,
      kind: layer.kind,
      part: end,
      places: [a.step(end, layer), b.step(end, layer)],
    });
    if (layer.inner === 0) {
      const follow = ids.map((id, t) => ids[t + 1] ?? id);
      await this.#embed("words", follow, where("mtpStart"));
      await this.#stages(mtp.start, where("mtpStart"));
      for (const run of this.#runs) run.replaceResidual();
      for (const streams of [this.#inStep, this.#dark]) {
        if (streams.has("out")) streams.add("residual");
        else streams.delete("residual");
      }
    }
    await this.#block(layer, number);
    if (layer.inner === layer.of - 1) await this.#stages(mtp.end, where("mtpEnd"));
  }

  /** @returns the worst door's distance */
  async #stages(stages: readonly Stage[], where: Where): Promise<number> {
    const { a, b, signal } = this.#o;
    let worst = 0;
    for (const [i, stage] of stages.entries()) {
      signal?.throwIfAborted();
      worst = Math.max(worst, await this.#stage(stage, where));
      for (const run of this.#runs) run.releaseUnused(stages, i);
    }
    a.forget();
    b.forget();
    this.#dealing?.release();
    this.#dealing = undefined;
    return worst;
  }

  async #embed(stream: string, ids: readonly number[], { layer, kind }: Door): Promise<void> {
    const { a, b } = this.#o;
    for (const run of this.#runs) {
      run.make([stream]);
      const weights = run === this.#recastSource && this.#o.recast ? "recast" : "stored";
      await (run === this.#destination ? b : a).embed(ids, weights, run.regions.get(stream)!);
    }
    const tensors = b.tables.map(({ tensor }) => tensorKey(tensor));
    await this.#door(stream, this.#destination, 0, { layer, kind, tensors });
    if (this.#zeros.has(stream)) this.#dark.add(stream);
    else this.#dark.delete(stream);
    if (stream !== "residual") return;
    this.#taker.residual(await this.#destination.view(stream));
    const spot = { layer, kind, limit: 0, slot: "embedding", dark: this.#dark };
    await this.#controls.embed(spot, this.#recastSource.regions.get(stream)!);
  }

  /** Runs a stage on both sides. @returns the worst door's distance */
  async #stage(stage: Stage, { places, layer, kind, part }: Where): Promise<number> {
    const { a, b } = this.#o;
    const { reads, makes } = stageStreams(stage);
    const borrows = !reads.every((name) => this.#inStep.has(name));
    for (const run of this.#runs) run.make(makes);
    if (borrows) this.#destinationOnSourceInputs.make(makes);
    await a.run(stage, places[0], this.#setsOfA(), this.#dealing);
    await b.run(stage, places[1], this.#setsOfB(borrows), this.#dealing);
    const sameOrder = a.cuts(stage, places[0]) === b.cuts(stage, places[1]);
    if (!sameOrder) this.#inOrder = false;
    const limit = wiringLimit(sameOrder, Math.max(...reads.map((name) => this.#widths[name]!)));
    const theirs = borrows ? this.#destinationOnSourceInputs : this.#destination;
    let worst = 0;
    for (const name of makes) {
      const makers = (expert?: number) => b.makers(stage, places[1], name, expert);
      const distance =
        stage.op === "experts"
          ? await this.#expertDoors(name, theirs, limit, { layer, kind }, makers)
          : await this.#door(name, theirs, limit, { layer, kind, tensors: makers() });
      worst = Math.max(worst, distance);
    }
    this.#destinationOnSourceInputs.releaseAll();
    for (const name of makes) {
      if (this.#zeros.has(name) && (await this.#isRightlyZero(stage))) this.#dark.add(name);
      else this.#dark.delete(name);
    }
    const slot = `${part}: ${makes.join()}`;
    if (part !== null && this.#controls.wants(slot)) {
      const spot = { layer, kind, limit, slot, dark: this.#dark };
      await this.#controls.stage(spot, stage, places[1], this.#recastSource, this.#dealing);
    }
    if (stage.op === "kernel" && stage.choice !== undefined) {
      await this.#followChoice(stage.to, stage.choice(this.#o.dims), layer);
    }
    return worst;
  }

  /**
   * A control whose input is all zeros is void, so a kernel that loses its result must not pass for one. Stages with
   * weights of their own have controls of their own, which tell; of others the family says when zeros are right.
   */
  async #isRightlyZero(stage: Stage): Promise<boolean> {
    switch (stage.op) {
      case "linear":
      case "experts":
        return true;
      case "kernel":
        if (stage.parameters.length > 0) return true;
        return (
          stage.silent?.(await Promise.all(stage.from.map((name) => this.#recastSource.view(name)))) ?? false
        );
      case "dispatch":
        return this.#dark.has(stage.from);
      case "combine":
        return this.#dark.has(stage.from) || this.#dark.has(stage.weights);
      case "concat":
        return stage.from.every((name) => this.#dark.has(name));
      default:
        return stage satisfies never;
    }
  }

  /** Controls of a kind run in the stack in which it comes first: memory was counted for these. */
  #partOf({ kind, stack }: Layer): string | null {
    const first = this.#o.layers.find((layer) => layer.kind === kind)!;
    return first.stack === stack ? kind : null;
  }

  /** The source's experts for every run; their tokens are dealt out. */
  async #followChoice(stream: string, choice: ExpertChoice, layer: number): Promise<void> {
    const { backend, ids, layers } = this.#o;
    const chosen = await this.#source.view(stream);
    const own = await this.#destination.view(stream);
    for (let at = 0; at < chosen.length; at += choice.perToken) {
      const [theirs, mine] = [chosen, own].map((one) => one.subarray(at, at + choice.perToken));
      if (!sameBits(theirs!, mine!)) this.#flips++;
    }
    if (layers.some(({ stack, index }) => stack === "main" && index === layer))
      this.#taker.experts(layer, chosen, own);
    for (const run of this.#runs) if (run !== this.#source) await run.put(stream, chosen);
    this.#inStep.add(stream);
    this.#dealing = await ExpertRows.of(backend, chosen, ids.length, choice, true);
  }

  #setsOfA(): readonly StreamSet[] {
    if (this.#noise === undefined) return [this.#source.set()];
    return [this.#source.set(), this.#recastSource.set("recast"), this.#noise.set()];
  }

  #setsOfB(borrows: boolean): readonly StreamSet[] {
    return [
      this.#destination.set(),
      ...(borrows ? [this.#destinationOnSourceInputs.set("stored", this.#recastSource)] : []),
    ];
  }

  /** Wiring at one door: rounded against the other side on rounded's inputs. */
  async #door(
    stream: string,
    theirs: Streams,
    limit: number,
    where: Omit<BadDoor, "door" | "relL2">,
  ): Promise<number> {
    const [expected, got] = [await this.#recastSource.view(stream), await theirs.view(stream)];
    await this.#noteStream(stream, expected);
    return this.#judge(relL2(expected, got), limit, { ...where, door: stream });
  }

  /** A door for each expert: among hundreds, one that is wrong would hardly move the whole. */
  async #expertDoors(
    stream: string,
    theirs: Streams,
    limit: number,
    where: Door,
    makers: (expert: number) => readonly string[],
  ): Promise<number> {
    const [expected, got] = [await this.#recastSource.view(stream), await theirs.view(stream)];
    await this.#noteStream(stream, expected);
    const width = this.#widths[stream]!;
    const distances = this.#dealing!.experts.map(({ expert, from, count }) => {
      const [left, right] = [expected, got].map((all) => all.subarray(from * width, (from + count) * width));
      const door = { ...where, door: `${stream}.${expert}`, tensors: makers(expert) };
      return this.#judge(relL2(left!, right!), limit, door);
    });
    return Math.max(...distances);
  }

  async #noteStream(stream: string, expected: Float32Array): Promise<void> {
    if (expected.every((value) => value === 0)) this.#zeros.add(stream);
    else this.#zeros.delete(stream);
    if (sameBits(expected, await this.#destination.view(stream))) this.#inStep.add(stream);
    else this.#inStep.delete(stream);
  }

  #judge(distance: number, limit: number, where: Omit<BadDoor, "relL2">): number {
    this.#wiring.limit = Math.max(this.#wiring.limit, limit);
    this.#wiring.maxRelL2 = Math.max(this.#wiring.maxRelL2, distance);
    if (!(distance <= limit)) this.#bad.push({ ...where, relL2: distance });
    return distance;
  }

  async #addResidual(): Promise<void> {
    for (const run of this.#runs) await run.addResidual();
    if (!this.#inStep.has("out")) this.#inStep.delete("residual");
    if (!this.#dark.has("out")) this.#dark.delete("residual");
    if (this.#noise === undefined) return;
    // The residual stream as a BF16 run would keep it.
    const rounded = Float32Array.from(await this.#noise.view("residual"), (value) =>
      f32OfBits((encodeBits("BF16", bitsOfF32(value)) << 16) >>> 0),
    );
    await this.#noise.put("residual", rounded);
  }

  async #head(layer: number): Promise<LogitsSummary> {
    const { forward, a, b, backend, dims, ids } = this.#o;
    const where: Where = { layer, kind: "head", part: "head", places: [a.head, b.head] };
    const last = forward.head.at(-1)!;
    for (const stage of forward.head.slice(0, -1)) await this.#stage(stage, where);
    const from = stageStreams(last).reads[0]!;
    const borrows = !this.#inStep.has(from);
    const [setsA, setsB] = [this.#setsOfA(), this.#setsOfB(borrows)];
    const width = Math.min(dims.vocab, blockWords(this.#o.blockBytes, ids.length));
    const block = () => backend.allocate(4 * ids.length * width);
    const [blocksA, blocksB] = [setsA.map(block), setsB.map(block)];
    const quality = new LogitsComparison(ids, this.#o.textTokens || ids.length);
    const [wiring, noise] = [new Distance(ids.length), new Distance(ids.length)];
    for (let lo = 0; lo < dims.vocab; lo += width) {
      const hi = Math.min(dims.vocab, lo + width);
      await a.logits(from, lo, hi, setsA, blocksA);
      await b.logits(from, lo, hi, setsB, blocksB);
      const values = (regions: typeof blocksA) =>
        Promise.all(regions.map((region) => backend.view(region, ids.length * (hi - lo))));
      const [source, rounded, noisy] = await values(blocksA);
      const [own, borrowed] = await values(blocksB);
      quality.add(lo, hi - lo, source!, own!);
      this.#taker.logits(lo, hi - lo, own!);
      wiring.add(rounded ?? source!, borrowed ?? own!);
      noise.add(source!, noisy ?? source!);
      if (lo === 0) {
        const spot = { layer, kind: where.kind, limit: 0, slot: "head: logits", dark: this.#dark };
        await this.#controls.logits(spot, from, hi, this.#recastSource, rounded ?? source!);
      }
    }
    for (const region of [...blocksA, ...blocksB]) backend.release(region);
    for (const run of this.#runs) run.release(from);
    a.forget();
    b.forget();
    const tensors = b.makers(last, b.head, "logits");
    this.#judge(wiring.relL2, 0, { layer, kind: where.kind, door: "logits", tensors });
    return quality.summary(Number.isFinite(noise.maxAbs) ? noise.maxAbs : 0);
  }
}
