/**
 * Positive controls of a cut: deliberate mistakes of selection that the comparison must detect. In the first layer of each kind, the
 * masked source runs a stage as a wrong cut would: with a dropped unit in place of one that is kept, or with two units of
 * neighbouring groups exchanged. Its distance from the cut model must then exceed the limit of the door.
 */
import { relL2, sameBits } from "../core/distance.ts";
import type { Masks, Stage } from "../families/forward.ts";
import type { Unit } from "../families/units.ts";
import { type Streams, stageStreams } from "../inference/activations.ts";
import type { ExpertRows } from "../inference/expert-rows.ts";
import type { ModelRunner } from "../inference/runner.ts";
import type { BlockNames } from "../inference/tensor-lookup.ts";
import type { Control } from "../verify/controls/trials.ts";
import { gatherRows, type LayerMask, scatterRows } from "./masked-run.ts";

/** Mistakes of one kind that are tried before a control counts as missed. */
const ATTEMPTS = 4;

interface Site {
  readonly layer: number;
  readonly kind: string;
  readonly part: string;
  readonly limit: number;
}

/** A stage of the masked source, as it ran. */
interface Door {
  readonly stage: Stage;
  readonly factor: number;
  readonly names: BlockNames;
  readonly rows: ExpertRows | undefined;
}

interface Mistake {
  readonly text: string;
  readonly mask: LayerMask;
}

export class CutControls {
  readonly results: Control[] = [];
  readonly #runner: ModelRunner;
  readonly #widths: Readonly<Record<string, number>>;
  readonly #masks: Masks;
  readonly #createStreams: () => Streams;
  readonly #done = new Set<string>();

  /**
   * @param runner        of the source
   * @param createStreams new streams with the widths of the source
   */
  constructor(
    runner: ModelRunner,
    widths: Readonly<Record<string, number>>,
    masks: Masks,
    createStreams: () => Streams,
  ) {
    this.#runner = runner;
    this.#widths = widths;
    this.#masks = masks;
    this.#createStreams = createStreams;
  }

  /**
   * Tries the mistakes of a stage, once for each kind of layer.
   *
   * @param masked inputs of the stage, silenced
   * @param whole  its outputs before dropped parts were silenced, [rows, width of the source]
   * @param actual the cut model's outputs on the same inputs
   */
  async stage(
    site: Site,
    door: Door,
    mask: LayerMask,
    masked: Streams,
    whole: ReadonlyMap<string, Float32Array>,
    actual: Streams,
  ): Promise<void> {
    const { stage } = door;
    if (stage.op !== "linear" && stage.op !== "kernel") return;
    const { reads, makes } = stageStreams(stage);
    for (const unit of unitsIn(mask, [...reads, ...makes])) {
      const slot = `${site.part} ${makes.join()} ${unit}`;
      if (this.#done.has(slot) || mask.keptUnits(unit) === undefined) continue;
      this.#done.add(slot);
      const has = (streams: readonly string[]) => streams.some((name) => unitsIn(mask, [name]).has(unit));
      const inputs = new Map<string, Float32Array>();
      for (const name of reads) {
        const values = await masked.view(name);
        inputs.set(name, gatherRows(values, this.#widths[name]!, mask.kept(name)));
      }
      const parameters = stage.op === "kernel" && stage.parameters.length > 0;
      for (const grouped of [false, true]) {
        // without parameters a stage does the same to each unit of a group
        if (stage.op === "kernel" && !parameters && !grouped) continue;
        const strength = this.#strengths(mask, unit, inputs, whole);
        const mistakes = this.#mistakes(mask, unit, grouped, strength);
        if (mistakes.length === 0) continue;
        const outcome = (from: boolean, to: boolean) =>
          this.#try(site, door, mistakes, { mask, inputs, whole, actual, from, to });
        if (stage.op === "kernel") await outcome(true, true);
        else {
          if (has(makes)) await outcome(false, true);
          if (has(reads)) await outcome(true, false);
        }
      }
    }
  }

  async #try(
    { layer, kind, limit }: Site,
    { stage, factor, names, rows }: Door,
    mistakes: readonly Mistake[],
    at: {
      readonly mask: LayerMask;
      readonly inputs: ReadonlyMap<string, Float32Array>;
      readonly whole: ReadonlyMap<string, Float32Array>;
      readonly actual: Streams;
      /** the mistake is made in the inputs, and so in columns and parameters */
      readonly from: boolean;
      /** the mistake is made in the outputs, and so in rows */
      readonly to: boolean;
    },
  ): Promise<void> {
    const { makes } = stageStreams(stage);
    let missed: Omit<Control, "caught"> | null = null;
    let first: Omit<Control, "caught"> | null = null;
    for (const { text, mask: wrong } of mistakes) {
      const outputs = at.from ? await this.#run(stage, names, rows, at.inputs, wrong, factor) : at.whole;
      for (const door of makes) {
        const width = this.#widths[door]!;
        const right = gatherRows(at.whole.get(door)!, width, at.mask.kept(door));
        const made = gatherRows(outputs.get(door)!, width, (at.to ? wrong : at.mask).kept(door));
        const where = at.from ? (at.to ? "" : "columns of ") : "rows of ";
        const control = { layer, kind, door, mutation: `${where}${text}`, matrix: stage.op === "linear" };
        first ??= control;
        if (sameBits(right, made)) continue;
        missed ??= control;
        if (!(relL2(await at.actual.view(door), made) > limit)) continue;
        this.results.push({ ...control, caught: true });
        return;
      }
    }
    if (missed !== null) this.results.push({ ...missed, caught: false });
    else if (first !== null) this.results.push({ ...first, caught: null, void: "equal blocks" });
  }

  /** The outputs of a stage of the source with its inputs where a wrong cut takes them. */
  async #run(
    stage: Stage,
    names: BlockNames,
    rows: ExpertRows | undefined,
    inputs: ReadonlyMap<string, Float32Array>,
    wrong: LayerMask,
    factor: number,
  ): Promise<ReadonlyMap<string, Float32Array>> {
    const { reads, makes } = stageStreams(stage);
    const streams = this.#createStreams();
    streams.make([...reads, ...makes]);
    for (const name of reads)
      await streams.put(name, scatterRows(inputs.get(name)!, this.#widths[name]!, wrong.kept(name)));
    await this.#runner.run(stage, names, [streams.set()], rows);
    const made = new Map<string, Float32Array>();
    for (const name of makes) {
      made.set(
        name,
        Float32Array.from(await streams.view(name), (value) => value * factor),
      );
    }
    streams.releaseAll();
    return made;
  }

  /** For each kept unit the sum of squares of its elements: a mistake with a silent unit would show nothing. */
  #strengths(
    mask: LayerMask,
    unit: Unit,
    inputs: ReadonlyMap<string, Float32Array>,
    whole: ReadonlyMap<string, Float32Array>,
  ): Float64Array {
    const count = mask.keptUnits(unit)!.length;
    const sums = new Float64Array(count);
    const isOf = (name: string) => unitsIn(mask, [name]).has(unit);
    const streams = [...inputs].filter(([name]) => isOf(name));
    const made = [...whole]
      .filter(([name]) => isOf(name))
      .map(([name, values]) => gatherRows(values, this.#widths[name]!, mask.kept(name)));
    const values = streams.length > 0 ? streams.map(([, kept]) => kept) : made;
    for (const kept of values.slice(0, 1)) {
      const width = mask.unitsOf(streams[0]?.[0] ?? [...whole.keys()].find(isOf)!)[0]!.size * count;
      for (let i = 0; i < kept.length; i++) sums[Math.floor(((i % width) * count) / width)]! += kept[i]! ** 2;
    }
    return sums;
  }

  /**
   * @param grouped  exchange units of neighbouring groups; else a dropped unit takes the place of a kept one
   * @param strength of each kept unit
   */
  #mistakes(mask: LayerMask, unit: Unit, grouped: boolean, strength: Float64Array): readonly Mistake[] {
    const kept = mask.keptUnits(unit)!;
    const groups = this.#masks.groups[unit];
    const all = Object.values(this.#masks.streams)
      .flat()
      .find((units) => units.unit === unit)!.count;
    const per = kept.length / groups;
    const wrong = (text: string, list: readonly number[]): Mistake => ({ text, mask: mask.with(unit, list) });
    if (grouped) {
      if (groups < 2) return [];
      return Array.from({ length: Math.min(ATTEMPTS, per) }, (_, i) => {
        const [left, right] = [kept[i]!, kept[per + i]!];
        const list = kept.map((k) => (k === left ? right : k === right ? left : k));
        return wrong(`${unit} ${left} and ${right} of neighbouring groups exchanged`, list);
      });
    }
    const stays = new Set(kept);
    const dropped = Array.from({ length: all }, (_, k) => k).filter((k) => !stays.has(k));
    if (dropped.length === 0) return [];
    const strongest = [...kept.keys()].sort((i, j) => strength[j]! - strength[i]!).slice(0, ATTEMPTS);
    return strongest.map((at, i) => {
      const goes = kept[at]!;
      const group = Math.floor((goes * groups) / all);
      const comes = dropped.filter((k) => Math.floor((k * groups) / all) === group)[i] ?? dropped[0]!;
      const list = kept.map((k) => (k === goes ? comes : k));
      return wrong(`${unit} ${comes}, which was dropped, in place of ${goes}`, list);
    });
  }
}

function unitsIn(mask: LayerMask, streams: readonly string[]): ReadonlySet<Unit> {
  return new Set(streams.flatMap((name) => mask.unitsOf(name).map(({ unit }) => unit)));
}
