import { tensorKey } from "../core/checkpoint.ts";
import { Distance, relL2, sameBits } from "../core/distance.ts";
import { IsologitError } from "../core/errors.ts";
import type { ExpertChoice, Stage } from "../families/forward.ts";
import type { Layer } from "../families/structure.ts";
import { Streams, stageStreams } from "../inference/activations.ts";
import { ExpertRows } from "../inference/expert-rows.ts";
import { FingerprintRecorder } from "../inference/fingerprint.ts";
import { blockWords } from "../inference/memory.ts";
import type { BlockNames } from "../inference/tensor-lookup.ts";
import { Controls } from "../verify/controls/controls.ts";
import { wiringLimit } from "../verify/limits.ts";
import { type DoorLayer, WiringComparison } from "../verify/lockstep-wiring.ts";
import { LogitsComparison, type LogitsSummary } from "../verify/metrics.ts";
import type { LayerDrift } from "../verify/report.ts";
import { CutControls } from "./cut-controls.ts";
import type { CutLockstepOptions, CutLockstepResult } from "./cut-run.ts";
import { type Damage, DamageMeasure } from "./damage.ts";
import { keptUnits, LayerMask, silence } from "./masked-run.ts";

/** @throws TENSOR_MISSING, and read errors */
export async function compareCut(options: CutLockstepOptions): Promise<CutLockstepResult> {
  return new CutLockstep(options).run();
}

/** The stages of a block, of the start or end of a prediction step, or of the head. */
interface Section {
  /** of the cut model */
  readonly layer: number;
  readonly kind: string;
  readonly part: string | null;
  readonly names: readonly [source: BlockNames, pruned: BlockNames];
  readonly mask: LayerMask;
}

const EMBEDDING: DoorLayer = { layer: -1, kind: "embedding" };

class CutLockstep {
  readonly #o: CutLockstepOptions;
  readonly #ids: readonly number[];
  readonly #widths: Readonly<Record<string, number>>;
  readonly #parent: Streams;
  readonly #masked: Streams;
  /** what stays of `masked`, in the shapes of the cut model */
  readonly #expected: Streams;
  readonly #pruned: Streams;
  readonly #prunedOnMasked: Streams;
  readonly #wiring: WiringComparison;
  readonly #controls: Controls;
  readonly #cutControls: CutControls;
  readonly #recorder: FingerprintRecorder;
  readonly #drifts: LayerDrift[] = [];
  #flips = 0;
  #parentRows: ExpertRows | undefined;
  #rows: ExpertRows | undefined;

  constructor(options: CutLockstepOptions) {
    this.#o = options;
    const { backend, forward, source, pruned, prompts } = options;
    this.#ids = prompts.flat();
    const widths = forward.streams(pruned.dims);
    this.#widths = forward.streams(source.dims);
    const streams = (widthOf: Readonly<Record<string, number>>, rows: () => ExpertRows | undefined) => {
      const rowsOf = (name: string) => (forward.dispatched.includes(name) ? rows()!.rows : this.#ids.length);
      return new Streams(backend, (name) => rowsOf(name) * widthOf[name]!);
    };
    const [parentRows, rows] = [() => this.#parentRows, () => this.#rows];
    this.#parent = streams(this.#widths, parentRows);
    this.#masked = streams(this.#widths, rows);
    [this.#expected, this.#pruned, this.#prunedOnMasked] = [1, 2, 3].map(() => streams(widths, rows)) as [
      Streams,
      Streams,
      Streams,
    ];
    this.#wiring = new WiringComparison(this.#expected, this.#pruned, widths);
    const rowsOf = (name: string) =>
      forward.dispatched.includes(name) ? this.#rows!.rows : this.#ids.length;
    const lengthOf = (name: string) => rowsOf(name) * widths[name]!;
    const { runner, dims } = pruned;
    this.#controls = new Controls({ backend, forward, dims, ids: this.#ids, runner, lengthOf });
    const spare = () => streams(this.#widths, rows);
    this.#cutControls = new CutControls(source.runner, this.#widths, forward.masks!(source.dims), spare);
    this.#recorder = new FingerprintRecorder(prompts[0]!.length);
  }

  async run(): Promise<CutLockstepResult> {
    const { source, pruned, cut } = this.#o;
    const main = source.layers.filter(({ stack }) => stack === "main");
    const own = pruned.layers.filter(({ stack }) => stack === "main");
    await this.#embed("residual", this.#ids, EMBEDDING, this.#maskOf(null));
    await this.#record();
    for (const layer of main) {
      const at = cut.layers.indexOf(layer.index);
      if (at < 0) await this.#parentBlock(layer);
      else await this.#block(layer, own[at]!, at);
    }
    const { logits, damage } = await this.#head(own.length);
    this.#parent.releaseAll();
    for (const [i, layer] of source.layers.filter(({ stack }) => stack === "mtp").entries()) {
      const twin = pruned.layers.filter(({ stack }) => stack === "mtp")[i]!;
      await this.#mtpLayer(layer, twin, own.length + 1);
    }
    for (const run of this.#runs) run.releaseAll();
    const { measures: wiring, bad } = this.#wiring;
    const controls = [...this.#controls.results, ...this.#cutControls.results];
    const fingerprint = this.#recorder.finish(this.#o.backend.id);
    return { layers: this.#drifts, wiring, bad, flips: this.#flips, logits, damage, controls, fingerprint };
  }

  get #runs(): readonly Streams[] {
    return [this.#masked, this.#expected, this.#pruned];
  }

  #maskOf(layer: Layer | null): LayerMask {
    const { forward, source, cut, gains } = this.#o;
    const gain = layer?.stack === "main" ? gains.get(layer.index) : undefined;
    return new LayerMask(forward.masks!(source.dims), (unit) => keptUnits(cut, unit, layer), gain);
  }

  /** A layer that the cut drops: only the parent runs it. */
  async #parentBlock(layer: Layer): Promise<void> {
    const { forward, source } = this.#o;
    const stages = forward.block(layer.kind, source.dims);
    const names = source.runner.layer(layer);
    for (const [i, stage] of stages.entries()) {
      this.#o.signal?.throwIfAborted();
      this.#parent.make(stageStreams(stage).makes);
      await this.#runParent(stage, names);
      this.#parent.releaseUnused(stages, i);
    }
    await this.#parent.addResidual();
    this.#endLayer();
  }

  async #runParent(stage: Stage, names: BlockNames): Promise<void> {
    await this.#o.source.runner.run(stage, names, [this.#parent.set()], this.#parentRows);
    if (stage.op !== "kernel" || stage.choice === undefined) return;
    const [chosen, choice] = [await this.#parent.view(stage.to), stage.choice(this.#o.source.dims)];
    this.#parentRows = await ExpertRows.of(this.#o.backend, chosen, this.#ids.length, choice, false);
  }

  #endLayer(): void {
    this.#o.source.runner.forget();
    this.#o.pruned.runner.forget();
    for (const rows of [this.#rows, this.#parentRows]) rows?.release();
    this.#rows = undefined;
    this.#parentRows = undefined;
  }

  /** Runs a block and adds its output to the residual. `number` is its position in the cut model. */
  async #block(layer: Layer, twin: Layer, number: number): Promise<void> {
    const { forward, source, pruned, watch } = this.#o;
    const { kind } = layer;
    const mask = this.#maskOf(layer);
    const names = [source.runner.layer(layer), pruned.runner.layer(twin)] as const;
    const part = this.#partOf(twin);
    const localRelL2 = await this.#stages(
      forward.block(kind, source.dims),
      forward.block(kind, pruned.dims),
      { layer: number, kind, part, names, mask },
      layer.stack === "main",
    );
    if (layer.stack === "main") await this.#parent.addResidual();
    for (const run of [this.#masked, this.#pruned]) await run.addResidual();
    this.#wiring.noteResidualSum();
    const expected = await silence(this.#masked, "residual", this.#widths.residual!, mask.kept("residual"));
    this.#expected.release("out");
    await this.#expected.put("residual", expected);
    const driftRelL2 = relL2(expected, await this.#pruned.view("residual"));
    this.#drifts.push({ layer: number, kind, driftRelL2, localRelL2 });
    if (layer.stack === "main") await this.#record();
    this.#endLayer();
    watch({ type: "layer", layer: number, of: pruned.layers.length, kind });
  }

  async #record(): Promise<void> {
    const first = this.#o.prompts[0]!.length;
    const residual = await this.#pruned.view("residual");
    this.#recorder.residual(residual.subarray(0, (residual.length / this.#ids.length) * first));
  }

  /** Runs a prediction layer: its door is compared, its prediction is not used. */
  async #mtpLayer(layer: Layer, twin: Layer, first: number): Promise<void> {
    const { forward, source, pruned } = this.#o;
    const { mtp } = forward;
    if (mtp === undefined)
      throw new IsologitError("INTERNAL", "the family lists prediction layers but not how they run");
    const number = first + layer.index;
    const sectionAt = (end: "mtpStart" | "mtpEnd"): Section => ({
      ...{ layer: number, kind: layer.kind, part: end, mask: this.#maskOf(layer) },
      names: [source.runner.step(end, layer), pruned.runner.step(end, twin)],
    });
    if (layer.inner === 0) {
      const section = sectionAt("mtpStart");
      await this.#embed("words", this.#nextIds(), section, section.mask);
      await this.#stages(mtp.start, mtp.start, section, false);
      for (const run of this.#runs) run.replaceResidual();
      this.#wiring.noteResidualReplaced();
      this.#endLayer();
    }
    await this.#block(layer, twin, number);
    if (layer.inner === layer.of - 1) await this.#stages(mtp.end, mtp.end, sectionAt("mtpEnd"), false);
    this.#endLayer();
  }

  #nextIds(): readonly number[] {
    return this.#o.prompts.flatMap((ids) => ids.map((id, t) => ids[t + 1] ?? id));
  }

  async #embed(stream: string, ids: readonly number[], at: DoorLayer, mask: LayerMask): Promise<void> {
    const { source, pruned } = this.#o;
    const isMain = stream === "residual";
    for (const run of isMain ? [this.#parent, this.#masked] : [this.#masked]) {
      run.make([stream]);
      await source.runner.embed(ids, "stored", run.regions.get(stream)!);
    }
    await this.#expect(stream, mask);
    this.#pruned.make([stream]);
    await pruned.runner.embed(ids, "stored", this.#pruned.regions.get(stream)!);
    const tensors = pruned.runner.tables.map(({ tensor }) => tensorKey(tensor));
    const { layer, kind } = at;
    await this.#wiring.compareDoor(stream, this.#pruned, 0, { layer, kind, tensors });
    await this.#wiring.noteZeros(stream, null);
    if (!isMain) return;
    const site = { layer, kind, limit: 0, slot: "embedding", expectedZeros: this.#wiring.expectedZeros };
    await this.#controls.embed(site, this.#expected.regions.get(stream)!);
  }

  /** Silences a stream of `masked`, and puts what stays of it into `expected`. */
  async #expect(stream: string, mask: LayerMask, factor = 1): Promise<void> {
    const kept = await silence(this.#masked, stream, this.#widths[stream]!, mask.kept(stream), factor);
    if (!this.#expected.regions.has(stream)) this.#expected.make([stream]);
    await this.#expected.put(stream, kept);
  }

  /** Runs stages in order. @returns the largest distance at a door */
  async #stages(
    stages: readonly Stage[],
    twins: readonly Stage[],
    section: Section,
    withParent: boolean,
  ): Promise<number> {
    let largest = 0;
    for (const [i, stage] of stages.entries()) {
      this.#o.signal?.throwIfAborted();
      largest = Math.max(largest, await this.#stage(stage, twins[i]!, section, withParent));
      for (const run of withParent ? [this.#parent, ...this.#runs] : this.#runs) run.releaseUnused(stages, i);
    }
    return largest;
  }

  /** Runs a stage in all runs. @returns the largest distance at a door */
  async #stage(stage: Stage, twin: Stage, section: Section, withParent: boolean): Promise<number> {
    const { source, pruned } = this.#o;
    const { names, layer, kind, part, mask } = section;
    const { reads, makes } = stageStreams(stage);
    const known = mask.stage(stage);
    if (withParent) this.#parent.make(makes);
    this.#masked.make(makes);
    const together = withParent && (stage.op === "linear" || stage.op === "concat");
    if (together) await source.runner.run(stage, names[0], [this.#parent.set(), this.#masked.set()]);
    else {
      if (withParent) await this.#runParent(stage, names[0]);
      await source.runner.run(known.stage, names[0], [this.#masked.set()], this.#rows);
    }
    const sameOrder =
      source.runner.arithmetic(stage, names[0]) === pruned.runner.arithmetic(twin, names[1]) &&
      !mask.changesSums(stage);
    const limit = wiringLimit(sameOrder, Math.max(...reads.map((name) => this.#widths[name]!)));
    const whole = new Map<string, Float32Array>();
    for (const name of makes) {
      const values = Float32Array.from(await this.#masked.view(name));
      if (known.factor !== 1) for (let i = 0; i < values.length; i++) values[i]! *= known.factor;
      whole.set(name, values);
      await this.#expect(name, mask, known.factor);
    }
    const ownInputs = this.#wiring.areEqual(reads);
    this.#pruned.make(makes);
    if (!ownInputs) this.#prunedOnMasked.make(makes);
    const sets = [
      this.#pruned.set(),
      ...(ownInputs ? [] : [this.#prunedOnMasked.set("stored", this.#expected)]),
    ];
    await pruned.runner.run(twin, names[1], sets, this.#rows);
    const actual = ownInputs ? this.#pruned : this.#prunedOnMasked;
    let largest = 0;
    for (const name of makes) {
      const makers = (expert?: number) => pruned.runner.makers(twin, names[1], name, expert);
      const at = { layer, kind };
      const distance =
        stage.op === "experts"
          ? await this.#wiring.compareExpertDoors(name, actual, limit, at, this.#rows!.experts, makers)
          : await this.#wiring.compareDoor(name, actual, limit, { ...at, tensors: makers() });
      largest = Math.max(largest, distance);
    }
    if (part !== null) {
      const door = { stage: known.stage, factor: known.factor, names: names[0], rows: this.#rows };
      await this.#cutControls.stage({ layer, kind, part, limit }, door, mask, this.#masked, whole, actual);
    }
    this.#prunedOnMasked.releaseAll();
    for (const name of makes) await this.#wiring.noteZeros(name, twin);
    const slot = `${part}: ${makes.join()}`;
    if (part !== null && this.#controls.wants(slot)) {
      const site = { layer, kind, limit, slot, expectedZeros: this.#wiring.expectedZeros };
      await this.#controls.stage(site, twin, names[1], this.#expected, this.#rows);
    }
    if (stage.op === "kernel" && stage.choice !== undefined)
      await this.#followChoice(stage.to, stage.choice(source.dims), section);
    return largest;
  }

  /** Controls of a kind run only in the stack where the kind comes first. */
  #partOf({ kind, stack }: Layer): string | null {
    const first = this.#o.pruned.layers.find((layer) => layer.kind === kind)!;
    return first.stack === stack ? kind : null;
  }

  /** Gives the cut model the experts of the masked source, and counts differing choices. */
  async #followChoice(stream: string, choice: ExpertChoice, { layer, part }: Section): Promise<void> {
    const { backend, prompts, pruned } = this.#o;
    const chosen = Float32Array.from(await this.#masked.view(stream));
    const own = Float32Array.from(await this.#pruned.view(stream));
    for (let at = 0; at < chosen.length; at += choice.perToken) {
      const [left, right] = [chosen, own].map((all) => all.subarray(at, at + choice.perToken));
      if (!sameBits(left!, right!)) this.#flips++;
    }
    const isMain = pruned.layers.some(
      ({ stack, index }) => stack === "main" && index === layer && part !== null,
    );
    const rows = prompts[0]!.length * choice.perToken;
    if (isMain) this.#recorder.experts(layer, chosen.subarray(0, rows), own.subarray(0, rows));
    await this.#pruned.put(stream, chosen);
    this.#wiring.markEqual(stream);
    this.#rows = await ExpertRows.of(backend, chosen, this.#ids.length, choice, true);
  }

  async #head(layer: number): Promise<{ readonly logits: LogitsSummary; readonly damage: Damage }> {
    const { forward, source, pruned, backend, prompts, blockBytes } = this.#o;
    const names = [source.runner.head, pruned.runner.head] as const;
    const mask = this.#maskOf(null);
    const section: Section = { layer, kind: "head", part: "head", names, mask };
    for (const stage of forward.head.slice(0, -1)) await this.#stage(stage, stage, section, true);
    const last = forward.head.at(-1)!;
    const from = stageStreams(last).reads[0]!;
    const tokens = this.#ids.length;
    const vocab = this.#o.words ?? source.dims.vocab;
    const width = Math.min(vocab, blockWords(blockBytes, tokens));
    const blocks = [1, 2, 3, 4].map(() => backend.allocate(4 * tokens * width));
    const quality = new LogitsComparison(this.#ids, 1); // across prompts: losses are in the damage
    const damage = new DamageMeasure(prompts);
    const wiring = new Distance(tokens);
    const sameOrder =
      source.runner.arithmetic(last, names[0]) === pruned.runner.arithmetic(last, names[1]) &&
      !mask.changesSums(last);
    const limit = wiringLimit(sameOrder, this.#widths[from]!);
    for (let lo = 0; lo < vocab; lo += width) {
      const hi = Math.min(vocab, lo + width);
      const setsA = [this.#parent.set(), this.#masked.set()];
      const setsB = [this.#pruned.set(), this.#expected.set()];
      await source.runner.logits(from, lo, hi, setsA, blocks.slice(0, 2));
      await pruned.runner.logits(from, lo, hi, setsB, blocks.slice(2));
      const [parent, masked, own, onMasked] = await Promise.all(
        blocks.map(async (block) => Float32Array.from(await backend.view(block, tokens * (hi - lo)))),
      );
      quality.add(lo, hi - lo, masked!, own!);
      damage.add(lo, hi - lo, parent!, own!);
      wiring.add(masked!, onMasked!);
      this.#recorder.logits(lo, hi - lo, own!.subarray(0, prompts[0]!.length * (hi - lo)));
      if (lo > 0) continue;
      const { expectedZeros } = this.#wiring;
      const site = { layer, kind: "head", limit, slot: "head: logits", expectedZeros };
      await this.#controls.logits(site, from, hi, this.#expected, onMasked!);
    }
    for (const block of blocks) backend.release(block);
    for (const run of [this.#parent, ...this.#runs]) run.release(from);
    this.#endLayer();
    const tensors = pruned.runner.makers(last, names[1], "logits");
    this.#wiring.judge(wiring.relL2, limit, { layer, kind: "head", door: "logits", tensors });
    return { logits: quality.summary(0), damage: damage.result() };
  }
}
