/**
 * Checks the scales of rows and blocks that this version wrote: amax / 448, or for MXFP8 the power of two at or above it. One
 * row of blocks is in memory.
 */
import { exponentOf } from "../../cast/blocks.ts";
import { scaleOf } from "../../cast/cast.ts";
import type { BlockMaxima } from "../../workers/block-maxima.ts";

export class BlockScaleCheck {
  readonly #isExponent: boolean;
  /** the row of blocks whose elements are not all seen */
  #row = 0;
  #amax: Float32Array | undefined;
  #scale: Float32Array | undefined;
  #message: string | null = null;

  /** @param isExponent scales are powers of two */
  constructor(isExponent: boolean) {
    this.#isExponent = isExponent;
  }

  /** Adds the blocks of the next band. */
  add({ first, perRow, amax, scale }: BlockMaxima): void {
    for (let at = 0; at < amax.length; at += perRow) {
      const [row, found] = [first + at / perRow, amax.subarray(at, at + perRow)];
      const stored = scale.subarray(at, at + perRow);
      if (row !== this.#row || this.#amax === undefined || this.#scale === undefined) {
        this.#judge();
        [this.#row, this.#amax, this.#scale] = [row, found, stored];
        continue;
      }
      for (let i = 0; i < perRow; i++) {
        this.#amax[i] = Math.max(this.#amax[i]!, found[i]!);
        if (stored[i] !== 0) this.#scale[i] = stored[i]!; // 0: the band has no element of the block
      }
    }
  }

  /** @returns what is wrong with the first wrong scale; null if all are right */
  finish(): string | null {
    this.#judge();
    return this.#message;
  }

  #judge(): void {
    const [amax, scale] = [this.#amax, this.#scale];
    if (amax === undefined || scale === undefined || this.#message !== null) return;
    const at = scale.findIndex((stored, i) => stored !== this.#expected(amax[i]!));
    if (at < 0) return;
    const best = this.#expected(amax[at]!);
    this.#message = `the scale of block ${this.#row}, ${at} is ${scale[at]}; it must be ${best}`;
  }

  #expected(amax: number): number {
    return this.#isExponent ? 2 ** (exponentOf(amax) - 127) : scaleOf(amax, "F8_E4M3");
  }
}
