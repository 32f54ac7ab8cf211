/**
 * A run of a whole model with the parts silenced that a cut drops. Where each unit lies in a stream is said by the table of the
 * family; no layout and no rule of the cut is used here.
 */
import type { Backend, Region } from "../../kernels/kernel.ts";
import { floatBytes, type PlainFloat, widen } from "../core/float.ts";
import type { KernelStage, Masks, Stage, StreamUnits } from "../families/forward.ts";
import type { Dims, Layer } from "../families/structure.ts";
import type { Unit } from "../families/units.ts";
import { type Streams, stageStreams } from "../inference/activations.ts";
import { putFloats } from "../inference/sequences.ts";
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
  readonly #gain: PlainFloat | undefined;
  readonly #known = new Map<string, KeptElements>();

  /**
   * @param keptOf the units that stay, in the order in which the cut model has them; undefined: all
   * @param gain   the type of the gain of a norm over Mamba heads, where the cut rescales it; undefined: gains stay as they are
   */
  constructor(masks: Masks, keptOf: (unit: Unit) => readonly number[] | undefined, gain?: PlainFloat) {
    this.#masks = masks;
    this.#keptOf = keptOf;
    this.#gain = gain;
  }

  /** The units that stay; undefined: all. */
  keptUnits(unit: Unit): readonly number[] | undefined {
    return this.#keptOf(unit);
  }

  /** The mask with other units. */
  with(unit: Unit, units: readonly number[]): LayerMask {
    const keptOf = (other: Unit) => (other === unit ? units : this.#keptOf(other));
    return new LayerMask(this.#masks, keptOf, this.#gain);
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
   * A stage as the cut model computes it from silenced streams: a norm takes its mean over the units that stay, and its gain,
   * where the cut rescales it, is √(all / kept) times as large and rounded to its type.
   *
   * @returns the stage, and the number that multiplies its result
   */
  stage(stage: Stage): { readonly stage: Stage; readonly factor: number } {
    const norm = stage.op === "kernel" ? this.#masks.norms[stage.to] : undefined;
    const kept = norm === undefined ? undefined : this.#keptOf(norm.unit);
    if (stage.op !== "kernel" || norm === undefined || kept === undefined) return { stage, factor: 1 };
    const all = this.unitsOf(stage.to)[0]!.count; // a norm makes a stream of the units that it counts
    const share = kept.length / all;
    const gain = norm.unit === "mambaHeads" ? this.#gain : undefined;
    // x / sqrt(sum / kept + eps) = sqrt(share) * x / sqrt(sum / all + share * eps)
    const run: KernelStage["run"] = (backend, d, rows, inputs, output) => {
      const values = d as unknown as Readonly<Record<string, number>>; // the table names a number of the dims
      const scaled = { ...d, [norm.eps]: values[norm.eps]! * share } as Dims;
      if (gain === undefined) return stage.run(backend, scaled, rows, inputs, output);
      return runWithGain(backend, gain, 1 / Math.sqrt(share), inputs, (all) =>
        stage.run(backend, scaled, rows, all, output),
      );
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

/** Runs with another gain, which is the last of the inputs: multiplied by a factor, and rounded to its type. */
async function runWithGain(
  backend: Backend,
  dtype: PlainFloat,
  factor: number,
  inputs: readonly Region[],
  run: (inputs: readonly Region[]) => Promise<void>,
): Promise<void> {
  const gain = inputs.at(-1)!;
  const values = await backend.view(gain, gain.bytes / 4);
  const scaled = Float32Array.from(values, (value) => value * factor);
  const region = backend.allocate(gain.bytes);
  await putFloats(backend, region, widen(dtype, floatBytes(dtype, scaled)));
  await run([...inputs.slice(0, -1), region]);
  backend.release(region);
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
