/**
 * Tables with the result of a cast for every code of a narrow type. They are made from the definitions in
 * `core/float.ts`, so that a cast by table is exact by construction.
 */
import { bitsOf, isFp8, widthOf } from "../core/dtype.ts";
import { bitsOfF32, encodeBits, f32OfBits, NARROW, type NarrowDType, tableOf } from "../core/float.ts";

export type Fp8 = "F8_E4M3" | "F8_E5M2";
type HalfDType = "BF16" | "F16";

/** The exact F32 bits of a narrow code. A NaN keeps its sign; a NaN of BF16 or F16 keeps its payload too. */
export function widenBits(dtype: NarrowDType, code: number): number {
  const value = tableOf(dtype)[code]!;
  if (!Number.isNaN(value)) return bitsOfF32(value);
  const sign = code >>> (bitsOf(dtype) - 1);
  const payload = dtype === "BF16" ? code << 16 : dtype === "F16" ? code << 13 : 0x400000;
  return ((sign << 31) | 0x7f800000 | (payload & 0x7fffff)) >>> 0;
}

/**
 * The E4M3 or E5M2 code of an F32 value (given as bits) divided by a scale: saturating, ties to even.
 *
 * The quotient is that of an F32 division. It is computed in F64 and rounded once more, which gives the same bits because
 * 53 >= 2 * 24 + 2; quotients too small for this argument all become zero.
 */
export function fp8Code(to: Fp8, bits: number, scale: number): number {
  const value = f32OfBits(bits);
  if (Number.isNaN(value)) return encodeBits(to, bits);
  const { max } = NARROW[to];
  const quotient = Math.fround(value / scale);
  return encodeBits(to, bitsOfF32(Math.max(-max, Math.min(max, quotient))));
}

/** FP8 codes of all 65,536 patterns of a 16-bit float, for one scale: 64 KiB. */
export function halfToFp8(from: HalfDType, to: Fp8, scale: number): Uint8Array {
  const table = new Uint8Array(65536);
  const infinity = from === "BF16" ? 0x7f80 : 0x7c00;
  const codeOf = (magnitude: number) => fp8Code(to, widenBits(from, magnitude), scale);
  // Division and rounding are monotone, so equal codes form runs. Finding the end of each run by bisection takes some
  // 2,000 divisions instead of 32,768. A model with many small experts needs a table for each.
  for (let start = 0; start <= infinity; ) {
    const code = codeOf(start);
    let [same, past] = [start, infinity + 1];
    while (past - same > 1) {
      const middle = (same + past) >>> 1;
      if (codeOf(middle) === code) same = middle;
      else past = middle;
    }
    table.fill(code, start, past);
    start = past;
  }
  for (let nan = infinity + 1; nan < 0x8000; nan++) table[nan] = codeOf(nan);
  for (let m = 0; m < 0x8000; m++) table[0x8000 | m] = 0x80 | table[m]!;
  return table;
}

const halves = new Map<HalfDType, Uint8Array>();

/** BF16 as F16, or F16 as BF16, for all 65,536 patterns: 128 KiB, built once. Overflow gives infinity. Do not write to it. */
export function halfToHalf(from: HalfDType): Uint8Array {
  let table = halves.get(from);
  if (table === undefined) {
    const to = from === "BF16" ? "F16" : "BF16";
    const codes = Uint16Array.from({ length: 65536 }, (_, code) => encodeBits(to, widenBits(from, code)));
    table = new Uint8Array(codes.buffer);
    halves.set(from, table);
  }
  return table;
}

/**
 * The 256 codes of an FP8 tensor as `to`: code x source scale, rounded once to F32, then to `to`.
 *
 * @param scale scale of an FP8 destination; other types have none
 * @returns     256 elements of `to`, as bytes
 */
export function fp8To(
  from: Fp8,
  to: "F32" | HalfDType | Fp8,
  sourceScale: number,
  scale: number,
): Uint8Array {
  const codes = Array.from({ length: 256 }, (_, code) => {
    const stored = tableOf(from)[code]!;
    const bits = Number.isNaN(stored) ? widenBits(from, code) : bitsOfF32(stored * sourceScale);
    if (to === "F32") return bits;
    return isFp8(to) ? fp8Code(to, bits, scale) : encodeBits(to, bits);
  });
  const Codes = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array }[widthOf(to) as 1 | 2 | 4];
  return new Uint8Array(new Codes(codes).buffer);
}
