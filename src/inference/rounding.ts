/** Rounds source weights in memory exactly as the destination stores them, to run the source with only that change. */
import { createSharedMemory, FIRST_ADDRESS } from "../../kernels/module.ts";
import { type Caster, createCaster, SCRATCH_BYTES } from "../cast/cast.ts";
import { type FloatDType, widthOf } from "../core/dtype.ts";

/** The dtype and the stored scale that the destination has for a tensor. */
export interface Rounding {
  readonly to: FloatDType;
  readonly scale: number | null;
  /** fills `target` with elements [lo, hi) of a stored tensor as the destination stores them; absent: they are computed */
  readonly read?: (
    tensor: string,
    lo: number,
    hi: number,
    target: Uint8Array,
    signal: AbortSignal | undefined,
  ) => Promise<void>;
}

/** The roundings of rows [lo, hi) of a stored tensor. */
export interface RowRounding {
  readonly lo: number;
  readonly hi: number;
  readonly rounded: RoundedUnit;
}

/** What one part of a model may be rounded to. */
export interface RoundedUnit {
  /** by which a run chooses a version for this part alone */
  readonly unit: string;
  /** by the name of a version */
  readonly versions: Readonly<Record<string, Rounding>>;
}

/** Bytes of stored elements cast at a time. */
const PART_BYTES = 1024 * 1024;

/** Memory of a rounder: scratch, one part of stored bytes, and four times that because FP8 may widen to F32. */
export const ROUNDER_BYTES = SCRATCH_BYTES + 5 * PART_BYTES;

export class Rounder {
  readonly #caster: Caster;
  readonly #memory: WebAssembly.Memory;

  private constructor(caster: Caster, memory: WebAssembly.Memory) {
    this.#caster = caster;
    this.#memory = memory;
  }

  static async create(): Promise<Rounder> {
    const memory = createSharedMemory(ROUNDER_BYTES);
    return new Rounder(await createCaster(memory, FIRST_ADDRESS), memory);
  }

  /**
   * Fills `target` with the rounded elements of `stored`.
   *
   * @param scale scale of the stored elements; 1 where they have none
   */
  round(
    stored: Uint8Array,
    from: FloatDType,
    scale: number,
    { to, scale: toScale }: Rounding,
    target: Uint8Array,
  ): void {
    const first = FIRST_ADDRESS + SCRATCH_BYTES;
    const [width, toWidth] = [widthOf(from), widthOf(to)];
    for (let at = 0; at < stored.byteLength; at += PART_BYTES) {
      const part = stored.subarray(at, at + PART_BYTES);
      const count = part.byteLength / width;
      new Uint8Array(this.#memory.buffer, first, part.byteLength).set(part);
      this.#caster.cast(from, to, toScale, scale === 1 ? null : scale, first, first + PART_BYTES, count);
      target.set(
        new Uint8Array(this.#memory.buffer, first + PART_BYTES, count * toWidth),
        (at / width) * toWidth,
      );
    }
  }
}
