/**
 * Casts to E4M3 with a scale for each block of a matrix: its largest magnitude divided by 448, or for MXFP8 the power of two
 * at or above this quotient. A row of blocks is at hand as a whole, or comes in several bands of rows.
 */
import { instantiateModule } from "../../kernels/module.ts";
import { widthOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { bitsOfF32 } from "../core/float.ts";
import { magnitudeOf, NON_FINITE, SCRATCH_BYTES, scaleOf } from "./cast.ts";

/** How a matrix is divided into blocks that share a scale. */
export interface BlockScales {
  /** of the elements before the cast */
  readonly from: "F32" | "BF16" | "F16";
  /** of the whole matrix */
  readonly columns: number;
  /** rows and columns of a block; those at the ends may have fewer */
  readonly block: readonly [rows: number, columns: number];
  /** scales are powers of two, stored as their exponents (E8M0) in a byte each; else F32 */
  readonly isExponent: boolean;
}

/** Addresses are bytes in the memory; a band is whole rows at `at`. */
export interface BlockCaster {
  /** Forgets what `observe` has seen. */
  begin(scales: BlockScales): void;
  /**
   * Takes rows of one row of blocks into account.
   *
   * @param before number of elements before `at`, for errors
   * @throws NON_FINITE with the index of the first such element
   */
  observe(scales: BlockScales, at: number, rows: number, before?: number): void;
  /** Writes the scales of the row of blocks that `observe` has seen. @returns bytes written */
  writeScales(scales: BlockScales, to: number): number;
  /** Writes the codes of rows of that row of blocks. `writeScales` must have been called. */
  writeCodes(scales: BlockScales, at: number, to: number, rows: number): void;
  /** Writes codes and scales of whole rows of blocks. @returns bytes of the scales, which begin at `scalesAt` */
  castRows(scales: BlockScales, at: number, rows: number, to: number, scalesAt: number): number;
}

const KINDS = { F32: 0, BF16: 1, F16: 2 } as const;

/** The value of each stored exponent. */
const POWERS = Float64Array.from({ length: 255 }, (_, exponent) => 2 ** (exponent - 127));

/**
 * The byte of the least power of two with which `amax` is not clipped: 127 + ceil(log2(amax / 448)), as ModelOpt computes
 * it; 0 for a block of zeros, and for magnitudes below its range.
 */
export function exponentOf(amax: number): number {
  const bits = bitsOfF32(amax);
  // 448 = 1.75 * 2^8; subnormal magnitudes have the exponent 0 here, and the result is 0 for them
  const exponent = (bits >>> 23) - 8 + ((bits & 0x7fffff) > 0x600000 ? 1 : 0);
  return Math.max(0, exponent);
}

/** @param scratchAt address of SCRATCH_BYTES that only this caster uses, and a caster of `createCaster` between its calls */
export async function createBlockCaster(memory: WebAssembly.Memory, scratchAt: number): Promise<BlockCaster> {
  const wasm = await instantiateModule(memory);
  /** Number of blocks in a row of blocks. Their magnitudes, and then their scales, are in the scratch memory. */
  const countOf = ({ columns, block }: BlockScales): number => {
    const count = Math.ceil(columns / block[1]);
    if (4 * count <= SCRATCH_BYTES) return count;
    throw new IsologitError(
      "LIMIT_EXCEEDED",
      `a row has ${count} scales, expected at most ${SCRATCH_BYTES / 4}`,
    );
  };
  const wordsOf = (scales: BlockScales) => new Uint32Array(memory.buffer, scratchAt, countOf(scales));
  const caster: BlockCaster = {
    begin(scales) {
      wordsOf(scales).fill(0);
    },

    observe(scales, at, rows, before = 0) {
      const { from, columns, block } = scales;
      const size = widthOf(from);
      wasm.blockMax!(size, at, rows, columns, block[1], scratchAt);
      const words = wordsOf(scales);
      let most = 0;
      for (let i = 0; i < words.length; i++) most = Math.max(most, words[i]!);
      if (most < NON_FINITE[from]) return;
      const index = wasm[`reaches${8 * size}`]!(at, 0, rows * columns, NON_FINITE[from]);
      throw new IsologitError("NON_FINITE", "a weight is NaN or infinite", { index: before + index });
    },

    writeScales(scales, to) {
      const words = wordsOf(scales);
      const factors = new Float32Array(memory.buffer, scratchAt, words.length);
      const size = scales.isExponent ? 1 : 4;
      const stored = new DataView(memory.buffer, to, size * words.length);
      for (let i = 0; i < words.length; i++) {
        const amax = magnitudeOf(scales.from, words[i]!);
        if (scales.isExponent) {
          const exponent = exponentOf(amax);
          factors[i] = POWERS[exponent]!;
          stored.setUint8(i, exponent);
        } else {
          factors[i] = scaleOf(amax, "F8_E4M3");
          stored.setFloat32(4 * i, factors[i]!, true);
        }
      }
      return stored.byteLength;
    },

    writeCodes({ from, columns, block }, at, to, rows) {
      wasm.blocksToE4M3!(KINDS[from], scratchAt, at, to, rows, columns, block[1]);
    },

    castRows(scales, at, rows, to, scalesAt) {
      const { columns, block, from } = scales;
      let scaleBytes = 0;
      for (let top = 0; top < rows; top += block[0]) {
        const [first, count] = [top * columns, Math.min(block[0], rows - top)];
        const rowAt = at + first * widthOf(from);
        caster.begin(scales);
        caster.observe(scales, rowAt, count, first);
        scaleBytes += caster.writeScales(scales, scalesAt + scaleBytes);
        caster.writeCodes(scales, rowAt, to + first, count);
      }
      return scaleBytes;
    },
  };
  return caster;
}
