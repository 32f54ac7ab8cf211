/**
 * A run of a whole model with the parts silenced that a cut drops. Where each unit lies in a stream is said by the table of the
 * family; no layout and no rule of the cut is used here.
 */
import type { KernelStage, Masks, Stage, StreamUnits } from "../families/forward.ts";
import type { Dims, Layer } from "../families/structure.ts";
import type { Unit } from "../families/units.ts";
import { type Streams, stageStreams } from "../inference/activations.ts";
import type { Cut } from "./cut.ts";

/** The units that stay in a layer; undefined: all of them. `layer` null: outside of layers. */
export function keptUnits(cut: Cut, unit: Unit, layer: Layer | null): readonly number[] | undefined {
  if (unit === "hidden") return cut.hidden;
  return layer?.stack === "main" ? cut[unit].get(layer.index) : undefined;
}

/** The elements of one row of a stream that stay, in order; null: all. */
type KeptElements = Int32Array | null;

/** Which elements stay in each stream of a layer. */
export class LayerMask {
  readonly #masks: Masks;
  readonly #keptOf: (unit: Unit) => readonly number[] | undefined;
  readonly #known = new Map<string, KeptElements>();

  /** @param keptOf the units that stay, in the order in which the cut model has them; undefined: all */
  constructor(masks: Masks, keptOf: (unit: Unit) => readonly number[] | undefined) {
    this.#masks = masks;
    this.#keptOf = keptOf;
  }

  /** The units that stay; undefined: all. */
  keptUnits(unit: Unit): readonly number[] | undefined {
    return this.#keptOf(unit);
  }

  /** The mask with other units. */
  with(unit: Unit, units: readonly number[]): LayerMask {
    return new LayerMask(this.#masks, (other) => (other === unit ? units : this.#keptOf(other)));
  }

  unitsOf(stream: string): readonly StreamUnits[] {
    return this.#masks.streams[stream] ?? [];
  }

  /** Elements of a stream that stay; null: all. */
  kept(stream: string): KeptElements {
    const known = this.#known.get(stream);
    if (known !== undefined) return known;
    const parts = this.unitsOf(stream);
    const isCut = parts.some(({ unit }) => this.#keptOf(unit) !== undefined);
    const elements = isCut ? Int32Array.from(this.#elements(parts)) : null;
    this.#known.set(stream, elements);
    return elements;
  }

  /** Whether a cut changes the order in which a stage adds its inputs. */
  changesSums(stage: Stage): boolean {
    return stageStreams(stage).reads.some((stream) => this.kept(stream) !== null);
  }

  /**
   * A stage as the cut model computes it from silenced streams: a norm takes its mean over the units that stay.
   *
   * @returns the stage, and the number that multiplies its result
   */
  stage(stage: Stage): { readonly stage: Stage; readonly factor: number } {
    const norm = stage.op === "kernel" ? this.#masks.norms[stage.to] : undefined;
    const kept = norm === undefined ? undefined : this.#keptOf(norm.unit);
    if (stage.op !== "kernel" || norm === undefined || kept === undefined) return { stage, factor: 1 };
    const all = this.unitsOf(stage.to)[0]!.count; // a norm makes a stream of the units that it counts
    const share = kept.length / all;
    // x / sqrt(sum / kept + eps) = sqrt(share) * x / sqrt(sum / all + share * eps)
    const run: KernelStage["run"] = (backend, d, rows, inputs, output) => {
      const values = d as unknown as Readonly<Record<string, number>>; // the table names a number of the dims
      const scaled = { ...d, [norm.eps]: values[norm.eps]! * share } as Dims;
      return stage.run(backend, scaled, rows, inputs, output);
    };
    return { stage: { ...stage, run }, factor: Math.sqrt(share) };
  }

  *#elements(parts: readonly StreamUnits[]): Generator<number> {
    let at = 0;
    for (const { unit, count, size } of parts) {
      const units = this.#keptOf(unit) ?? Array.from({ length: count }, (_, i) => i);
      for (const k of units) for (let i = 0; i < size; i++) yield at + k * size + i;
      at += count * size;
    }
  }
}

/** The kept elements of every row: [rows, width] to [rows, kept]. */
export function gatherRows(values: Float32Array, width: number, kept: KeptElements): Float32Array {
  if (kept === null) return Float32Array.from(values);
  const rows = values.length / width;
  const gathered = new Float32Array(rows * kept.length);
  for (let t = 0, to = 0; t < rows; t++)
    for (let i = 0; i < kept.length; i++) gathered[to++] = values[t * width + kept[i]!]!;
  return gathered;
}

/** The inverse: [rows, kept] to [rows, width], with zeros in place of what is dropped. */
export function scatterRows(values: Float32Array, width: number, kept: KeptElements): Float32Array {
  if (kept === null) return Float32Array.from(values);
  const rows = values.length / kept.length;
  const scattered = new Float32Array(rows * width);
  for (let t = 0, from = 0; t < rows; t++)
    for (let i = 0; i < kept.length; i++) scattered[t * width + kept[i]!] = values[from++]!;
  return scattered;
}

/** Sets what is dropped of a stream to zero, after multiplying by `factor`. @returns the kept elements, [rows, kept] */
export async function silence(
  streams: Streams,
  stream: string,
  width: number,
  kept: KeptElements,
  factor = 1,
): Promise<Float32Array> {
  const gathered = gatherRows(await streams.view(stream), width, kept);
  if (factor !== 1) for (let i = 0; i < gathered.length; i++) gathered[i]! *= factor;
  if (kept !== null || factor !== 1) await streams.put(stream, scatterRows(gathered, width, kept));
  return gathered;
}
