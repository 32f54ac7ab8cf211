/**
 * Runs two models step by step and compares them after every stage. Up to five runs advance together:
 *
 * - `source` and `destination`: each model on its own inputs. Their distance is the quality of a recast.
 * - `recastSource`: the source with every weight rounded as the destination stores it.
 * - `destinationOnSourceInputs`: the destination on the inputs of `recastSource`. These two runs do the same arithmetic, so
 *   their distance measures the wiring, and the first door with a distance above the limit locates a fault.
 * - `noise`: the source with activations rounded to BF16; its distance from the source is the noise floor of top-1.
 *
 * Where nothing is recast, `recastSource` is `source`, and `noise` is not run. Where the inputs of `destination` have the
 * same bits as those of `recastSource`, `destinationOnSourceInputs` is `destination`. With `pairs`, products of these two runs are
 * computed once where weights and inputs are equal.
 *
 * All runs use the experts that the source's router chooses: a near tie may be decided differently, and another expert
 * computes another function. The choices that the destination's router would make differently are counted. Every expert
 * computes at least one row, chosen or not.
 */
import type { Backend } from "../../kernels/kernel.ts";
import { tensorKey } from "../core/checkpoint.ts";
import { Distance, relL2, sameBits } from "../core/distance.ts";
import { IsologitError } from "../core/errors.ts";
import type { Watch } from "../core/events.ts";
import type { ExpertChoice, Forward, Stage } from "../families/forward.ts";
import type { Dims, Layer } from "../families/structure.ts";
import { Streams, stageStreams } from "../inference/activations.ts";
import { ExpertRows } from "../inference/expert-rows.ts";
import { type Fingerprint, FingerprintRecorder } from "../inference/fingerprint.ts";
import { blockWords } from "../inference/memory.ts";
import type { ModelRunner } from "../inference/runner.ts";
import type { BlockNames } from "../inference/tensor-lookup.ts";
import { Controls } from "./controls/controls.ts";
import type { Control } from "./controls/trials.ts";
import { wiringLimit } from "./limits.ts";
import { LockstepRuns } from "./lockstep-runs.ts";
import type { LockstepState } from "./lockstep-state.ts";
import { type BadDoor, type DoorLayer, WiringComparison } from "./lockstep-wiring.ts";
import { LogitsComparison, type LogitsSummary } from "./metrics.ts";
import type { PairedReading, PairedStage } from "./pairs/paired-reading.ts";
import type { LayerDrift } from "./report.ts";

export interface LockstepOptions {
  readonly backend: Backend;
  readonly forward: Forward;
  readonly dims: Dims;
  readonly layers: readonly Layer[];
  readonly ids: readonly number[];
  /** number of leading ids that are text, on which the loss is measured; 0: measure it on all ids */
  readonly textTokens: number;
  /** the source */
  readonly a: ModelRunner;
  /** the destination */
  readonly b: ModelRunner;
  /** some weights of the destination have another dtype than in the source */
  readonly recast: boolean;
  /** compares the weights of `recastSource` and of the destination where they are used alike */
  readonly pairs?: PairedReading | undefined;
  /** receives the numbers of bytes of the destination that are read beside those of the source */
  readonly advance: (bytes: number) => void;
  /** most bytes of a block of logits, for each run */
  readonly blockBytes: number;
  readonly watch: Watch;
  readonly signal: AbortSignal | undefined;
}

export interface LockstepResult {
  readonly layers: readonly LayerDrift[];
  readonly wiring: { readonly maxRelL2: number; readonly limit: number };
  /** in order of execution */
  readonly bad: readonly BadDoor[];
  /** tokens, over all layers, for which the destination's router chose other experts than the source's */
  readonly flips: number;
  /** all sums were added in the same order on both sides */
  readonly inOrder: boolean;
  readonly logits: LogitsSummary;
  /** deliberate faults in the destination, and whether the comparison detected them */
  readonly controls: readonly Control[];
  /** fingerprint of the destination's own run */
  readonly fingerprint: Fingerprint;
}

/** The stages of a block, of the start or end of a prediction step, or of the head. */
interface Section {
  readonly layer: number;
  readonly kind: string;
  /** controls run once for each part: kind of the block, "entry", "head", "mtpStart" or "mtpEnd"; null: no controls here */
  readonly part: string | null;
  readonly names: readonly [a: BlockNames, b: BlockNames];
}

/** The place of the embedding in reports. */
const EMBEDDING: DoorLayer = { layer: -1, kind: "embedding" };

/** A word whose values are stored multiplied is rounded where it is multiplied, and where it is divided again. */
const PRODUCT_ROUNDINGS = 2;

/** Two models that run step by step, once. */
export class Lockstep {
  readonly #o: LockstepOptions;
  readonly #widths: Readonly<Record<string, number>>;
  readonly #runs: LockstepRuns;
  readonly #drifts: LayerDrift[] = [];
  #flips = 0;
  #inOrder = true;
  #expertRows: ExpertRows | undefined;
  readonly #wiring: WiringComparison;
  readonly #controls: Controls;
  readonly #recorder: FingerprintRecorder;

  constructor(options: LockstepOptions) {
    this.#o = options;
    this.#widths = options.forward.streams(options.dims);
    const { forward, backend, ids } = options;
    const rowsOf = (name: string) =>
      forward.dispatched.includes(name) ? this.#expertRows!.rows : ids.length;
    const lengthOf = (name: string) => rowsOf(name) * this.#widths[name]!;
    this.#runs = new LockstepRuns(options.recast, () => new Streams(backend, lengthOf));
    this.#controls = new Controls({ ...options, runner: options.b, lengthOf });
    this.#recorder = new FingerprintRecorder(ids.length);
    this.#wiring = new WiringComparison(this.#runs.recastSource, this.#runs.destination, this.#widths);
  }

  /**
   * Runs all layers and the head.
   *
   * @param begun the state after the first layers, if they have run already
   * @throws TENSOR_MISSING, STAGING_CHANGED, and read errors
   */
  async run(begun: LockstepState | null): Promise<LockstepResult> {
    const { layers } = this.#o;
    const main = this.#main;
    await this.#runLayers(main.length, begun);
    const logits = await this.#head(main.length);
    for (const layer of layers) if (layer.stack === "mtp") await this.#mtpLayer(layer, main.length + 1);
    this.#runs.releaseAll();
    const { measures: wiring, bad } = this.#wiring;
    const [flips, inOrder] = [this.#flips, this.#inOrder];
    const controls = this.#controls.results;
    const fingerprint = this.#recorder.finish(this.#o.backend.id);
    return { layers: this.#drifts, wiring, bad, flips, inOrder, logits, controls, fingerprint };
  }

  /** Runs main layers only, until `end` of them have run. @throws as `run` */
  async runTo(end: number, begun: LockstepState | null): Promise<LockstepState> {
    await this.#runLayers(end, begun);
    const residuals = await this.#runs.residuals();
    this.#runs.releaseAll();
    return {
      ...{ layers: end, residuals, drifts: this.#drifts },
      ...{ flips: this.#flips, inOrder: this.#inOrder },
      ...{ wiring: this.#wiring.state, controls: this.#controls.state, fingerprint: this.#recorder.record },
    };
  }

  get #main(): readonly Layer[] {
    return this.#o.layers.filter(({ stack }) => stack === "main");
  }

  /** Runs main layers until so many have run. */
  async #runLayers(end: number, begun: LockstepState | null): Promise<void> {
    if (begun === null) {
      await this.#embed("residual", this.#o.ids, EMBEDDING);
      await this.#entry();
      this.#recorder.residual(await this.#runs.destination.view("residual"));
    } else await this.#restore(begun);
    for (const layer of this.#main.slice(begun?.layers ?? 0, end)) await this.#block(layer, layer.index);
  }

  async #restore(begun: LockstepState): Promise<void> {
    const { layers, residuals } = begun;
    const length = this.#o.ids.length * this.#widths.residual!;
    if (residuals.length !== this.#runs.all.length || residuals.some((values) => values.length !== length))
      throw new IsologitError("STAGING_CHANGED", `the state after ${layers} layers is of another run`);
    await this.#runs.putResiduals(residuals);
    this.#drifts.push(...begun.drifts);
    [this.#flips, this.#inOrder] = [begun.flips, begun.inOrder];
    await this.#wiring.restore(begun.wiring);
    this.#controls.restore(begun.controls);
    this.#recorder.restore(begun.fingerprint);
  }

  /** Runs the stages between the embedding and the first layer. */
  async #entry(): Promise<void> {
    const { forward, a, b } = this.#o;
    if (forward.entry === undefined) return;
    const names = [a.embedding, b.embedding] as const;
    await this.#stages(forward.entry, { ...EMBEDDING, part: "entry", names });
    this.#replaceResidual();
  }

  /** Runs a block and adds its output to the residual. `number` is the position among all layers. */
  async #block(layer: Layer, number: number): Promise<void> {
    const { layers, forward, dims, a, b, watch } = this.#o;
    const { kind } = layer;
    const section: Section = {
      layer: number,
      kind,
      part: this.#partOf(layer),
      names: [a.layer(layer), b.layer(layer)],
    };
    const localRelL2 = await this.#stages(forward.block(kind, dims), section);
    await this.#runs.addResidual();
    this.#wiring.noteResidualSum();
    const residual = await this.#runs.destination.view("residual");
    const driftRelL2 = relL2(await this.#runs.source.view("residual"), residual);
    if (layer.stack === "main") this.#recorder.residual(residual);
    this.#drifts.push({ layer: number, kind, driftRelL2, localRelL2 });
    watch({ type: "layer", layer: number, of: layers.length, kind });
  }

  /**
   * Runs a prediction layer (multi-token prediction). The first layer of a step reads the last hidden state. The prediction
   * of the last layer is not used, but every door is compared.
   */
  async #mtpLayer(layer: Layer, first: number): Promise<void> {
    const { forward, a, b, ids } = this.#o;
    const { mtp } = forward;
    if (mtp === undefined)
      throw new IsologitError("INTERNAL", "the family lists prediction layers but not how they run");
    const number = first + layer.index;
    const sectionAt = (end: "mtpStart" | "mtpEnd"): Section => ({
      layer: number,
      kind: layer.kind,
      part: end,
      names: [a.step(end, layer), b.step(end, layer)],
    });
    if (layer.inner === 0) {
      const nextIds = ids.map((id, t) => ids[t + 1] ?? id);
      await this.#embed("words", nextIds, sectionAt("mtpStart"));
      await this.#stages(mtp.start, sectionAt("mtpStart"));
      this.#replaceResidual();
    }
    await this.#block(layer, number);
    if (layer.inner === layer.of - 1) await this.#stages(mtp.end, sectionAt("mtpEnd"));
  }

  /** Runs stages in order. @returns the largest distance at a door */
  async #stages(stages: readonly Stage[], section: Section): Promise<number> {
    const { a, b, signal } = this.#o;
    let largest = 0;
    for (const [i, stage] of stages.entries()) {
      signal?.throwIfAborted();
      largest = Math.max(largest, await this.#stage(stage, section));
      this.#runs.releaseUnused(stages, i);
    }
    a.forget();
    b.forget();
    this.#expertRows?.release();
    this.#expertRows = undefined;
    return largest;
  }

  async #embed(stream: string, ids: readonly number[], { layer, kind }: DoorLayer): Promise<void> {
    const { a, b } = this.#o;
    const { all, destination, recastSource } = this.#runs;
    this.#runs.make([stream]);
    for (const run of all) {
      const weights = run === recastSource && this.#o.recast ? "recast" : "stored";
      await (run === destination ? b : a).embed(ids, weights, run.regions.get(stream)!);
    }
    const tensors = b.tables.map(({ tensor }) => tensorKey(tensor));
    const isAlike = a.tableArithmetic === b.tableArithmetic;
    if (!isAlike) this.#inOrder = false;
    const limit = wiringLimit(isAlike, PRODUCT_ROUNDINGS);
    await this.#wiring.compareDoor(stream, destination, limit, { layer, kind, tensors });
    await this.#wiring.noteZeros(stream, null);
    if (stream !== "residual") return;
    const site = { layer, kind, limit, slot: "embedding", expectedZeros: this.#wiring.expectedZeros };
    await this.#controls.embed(site, recastSource.regions.get(stream)!);
  }

  /** Runs a stage in all runs. @returns the largest distance at a door */
  async #stage(stage: Stage, { names, layer, kind, part }: Section): Promise<number> {
    const { a, b } = this.#o;
    const { reads, makes } = stageStreams(stage);
    const ownInputs = this.#wiring.areEqual(reads);
    const { recastSource, destination, destinationOnSourceInputs } = this.#runs;
    this.#runs.make(makes);
    if (!ownInputs) destinationOnSourceInputs.make(makes);
    const paired = ownInputs ? this.#pairedStage(stage, names) : undefined;
    await a.run(stage, names[0], this.#runs.ofSource(), this.#expertRows, paired?.observe);
    if (paired?.areEqual === true) {
      for (const name of makes) await destination.put(name, await recastSource.view(name));
      this.#o.advance(paired.bytes);
    } else await b.run(stage, names[1], this.#runs.ofDestination(ownInputs), this.#expertRows);
    const isAlike = a.arithmetic(stage, names[0]) === b.arithmetic(stage, names[1]);
    if (!isAlike) this.#inOrder = false;
    const limit = wiringLimit(isAlike, Math.max(...reads.map((name) => this.#widths[name]!)));
    const actual = ownInputs ? destination : destinationOnSourceInputs;
    let largest = 0;
    for (const name of makes) {
      const makers = (expert?: number) => b.makers(stage, names[1], name, expert);
      const distance =
        stage.op === "experts"
          ? await this.#wiring.compareExpertDoors(
              name,
              actual,
              limit,
              { layer, kind },
              this.#expertRows!.experts,
              makers,
            )
          : await this.#wiring.compareDoor(name, actual, limit, { layer, kind, tensors: makers() });
      largest = Math.max(largest, distance);
    }
    destinationOnSourceInputs.releaseAll();
    for (const name of makes) await this.#wiring.noteZeros(name, stage);
    const slot = `${part}: ${makes.join()}`;
    if (part !== null && this.#controls.wants(slot)) {
      const site = { layer, kind, limit, slot, expectedZeros: this.#wiring.expectedZeros };
      await this.#controls.stage(site, stage, names[1], recastSource, this.#expertRows);
    }
    if (stage.op === "kernel" && stage.choice !== undefined) {
      await this.#followChoice(stage.to, stage.choice(this.#o.dims), layer);
    }
    return largest;
  }

  #pairedStage(stage: Stage, names: Section["names"]): PairedStage | undefined {
    const { a, b, pairs } = this.#o;
    const products = (runner: ModelRunner, place: BlockNames) =>
      runner.products(stage, place, this.#expertRows);
    return pairs?.stage(products(a, names[0]), products(b, names[1]), b);
  }

  /** Controls of a kind run only in the stack where the kind comes first: the memory plan covers only these. */
  #partOf({ kind, stack }: Layer): string | null {
    const first = this.#o.layers.find((layer) => layer.kind === kind)!;
    return first.stack === stack ? kind : null;
  }

  /** Gives every run the experts of the source, counts differing choices, and dispatches the tokens. */
  async #followChoice(stream: string, choice: ExpertChoice, layer: number): Promise<void> {
    const { backend, ids, layers } = this.#o;
    const { all, source, destination } = this.#runs;
    const chosen = await source.view(stream);
    const destinationChoice = await destination.view(stream);
    for (let at = 0; at < chosen.length; at += choice.perToken) {
      const [left, right] = [chosen, destinationChoice].map((all) => all.subarray(at, at + choice.perToken));
      if (!sameBits(left!, right!)) this.#flips++;
    }
    if (layers.some(({ stack, index }) => stack === "main" && index === layer))
      this.#recorder.experts(layer, chosen, destinationChoice);
    for (const run of all) if (run !== source) await run.put(stream, chosen);
    this.#wiring.markEqual(stream);
    this.#expertRows = await ExpertRows.of(backend, chosen, ids.length, choice, true);
  }

  #replaceResidual(): void {
    this.#runs.replaceResidual();
    this.#wiring.noteResidualReplaced();
  }

  async #head(layer: number): Promise<LogitsSummary> {
    const { forward, a, b, backend, dims, ids, pairs, advance } = this.#o;
    const section: Section = { layer, kind: "head", part: "head", names: [a.head, b.head] };
    const last = forward.head.at(-1)!;
    for (const stage of forward.head.slice(0, -1)) await this.#stage(stage, section);
    const from = stageStreams(last).reads[0]!;
    const isAlike = a.arithmetic(last, a.head) === b.arithmetic(last, b.head);
    if (!isAlike) this.#inOrder = false;
    const limit = wiringLimit(isAlike, this.#widths[from]!);
    const { recastSource: expected } = this.#runs;
    const [setsA, setsB] = [this.#runs.ofSource(), this.#runs.ofDestination(this.#wiring.areEqual([from]))];
    const width = Math.min(dims.vocab, blockWords(this.#o.blockBytes, ids.length));
    const block = () => backend.allocate(4 * ids.length * width);
    const [blocksA, blocksB] = [setsA.map(block), setsB.map(block)];
    const quality = new LogitsComparison(ids, this.#o.textTokens || ids.length);
    const [wiring, noise] = [new Distance(ids.length), new Distance(ids.length)];
    for (let lo = 0; lo < dims.vocab; lo += width) {
      const hi = Math.min(dims.vocab, lo + width);
      const products = (runner: ModelRunner) => runner.logitsProducts(from, lo, hi);
      const paired = setsB.length === 1 ? pairs?.stage(products(a), products(b), b) : undefined;
      await a.logits(from, lo, hi, setsA, blocksA, { observe: paired?.observe });
      if (paired?.areEqual === true) advance(paired.bytes);
      else await b.logits(from, lo, hi, setsB, blocksB);
      const values = (regions: typeof blocksA) =>
        Promise.all(regions.map((region) => backend.view(region, ids.length * (hi - lo))));
      const [source, recastSource = source!, noisySource = source!] = await values(blocksA);
      const [destination, destinationOnSourceInputs = destination!] =
        paired?.areEqual === true ? [recastSource] : await values(blocksB);
      quality.add(lo, hi - lo, source!, destination!);
      this.#recorder.logits(lo, hi - lo, destination!);
      wiring.add(recastSource, destinationOnSourceInputs);
      noise.add(source!, noisySource);
      if (lo === 0) {
        const { expectedZeros } = this.#wiring;
        const site = { layer, kind: section.kind, limit, slot: "head: logits", expectedZeros };
        await this.#controls.logits(site, from, hi, expected, recastSource);
      }
    }
    for (const region of [...blocksA, ...blocksB]) backend.release(region);
    this.#runs.release(from);
    a.forget();
    b.forget();
    const tensors = b.makers(last, b.head, "logits");
    this.#wiring.judge(wiring.relL2, limit, { layer, kind: section.kind, door: "logits", tensors });
    return quality.summary(Number.isFinite(noise.maxAbs) ? noise.maxAbs : 0);
  }
}
