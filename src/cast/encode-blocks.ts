/**
 * Casts to ggml's blocks, with the bytes of llama-quantize on x86-64 without an importance matrix. The numbers are widened to
 * F32 in parts, unless they are F32, and each part is encoded while it is in the processor's cache.
 */
import { instantiateModule } from "../../kernels/module.ts";
import { type BlockTarget, bitsOf, blockElements, type FloatDType, widthOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { type Caster, NON_FINITE } from "./cast.ts";

/** Elements that are widened at a time: whole blocks of every type, 16 KiB of F32. */
const PART_ELEMENTS = 4096;
/** Places in the scratch memory of casts. Before them lies the table of an FP8 type as F32. */
const FITS_AT = 4096;
const PART_AT = 8192;

export interface BlockEncoder {
  /**
   * Writes the blocks of `count` elements at `at`, which are whole blocks, to `toAt`. Addresses are bytes, of any alignment.
   *
   * @param sourceScale factor from stored to real values of an FP8 source; null: 1
   * @throws NON_FINITE with the index of the first NaN or infinity; OVERFLOW with the index of the first element of a block
   *   whose scale or minimum is too large for F16
   */
  encode(
    from: FloatDType,
    to: BlockTarget,
    sourceScale: number | null,
    at: number,
    toAt: number,
    count: number,
  ): void;
}

/**
 * @param scratchAt address of the scratch memory of `caster`, SCRATCH_BYTES
 * @param caster    widens elements; the encoder writes over its tables
 */
export async function createBlockEncoder(
  memory: WebAssembly.Memory,
  scratchAt: number,
  caster: Caster,
): Promise<BlockEncoder> {
  const wasm = await instantiateModule(memory);
  return {
    encode(from, to, sourceScale, at, toAt, count) {
      const block = blockElements(to);
      if (count % block !== 0)
        throw new IsologitError("INTERNAL", `${count} elements are not whole blocks of ${to}`);
      caster.forget();
      for (let lo = 0; lo < count; lo += PART_ELEMENTS) {
        const size = Math.min(PART_ELEMENTS, count - lo);
        let part = at + lo * widthOf(from);
        if (from !== "F32") {
          caster.cast(from, "F32", null, sourceScale, part, scratchAt + PART_AT, size);
          part = scratchAt + PART_AT;
        }
        const bits = wasm.amax32!(part, size);
        if (bits >= NON_FINITE.F32) {
          const index = lo + wasm.reaches32!(part, 0, size, NON_FINITE.F32);
          throw new IsologitError("NON_FINITE", "a weight is NaN or infinite", { index });
        }
        const partTo = toAt + (lo * bitsOf(to)) / 8;
        const infinite = wasm[`quantize${to}`]!(part, partTo, size / block, scratchAt + FITS_AT);
        if (infinite < 0) continue;
        const message = `a scale or minimum of a block of ${to} exceeds 65504, the largest F16`;
        throw new IsologitError("OVERFLOW", message, { index: lo + infinite * block });
      }
    },
  };
}
