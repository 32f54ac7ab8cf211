/**
 * Whether codes that another tool wrote are roundings of a weight under their stored scales. A correct code is nearest to
 * weight / scale. Tools that divide in BF16 write a neighbour for some elements: then the value of the code still differs
 * from the weight by at most one unit in the last place of the code, which is the bound here.
 */

import { type DecodedBlock, type FloatDType, type Fnuz, isDecodedBlock, isFnuz } from "../core/dtype.ts";
import { FNUZ, NARROW } from "../core/float.ts";
import { blockBound } from "./block-bound.ts";

/** Types of codes. */
export type CodeDType = "F8_E4M3" | "F8_E5M2" | Fnuz | "F4";

/** E2M1 has neither infinity nor NaN. */
const E2M1 = { exponent: 2, mantissa: 1, max: 6 } as const;

/** Largest relative error of a rounding to a normal number of a dtype: 2^-(mantissa + 1); of blocks, that of a block. */
export function roundingBound(dtype: FloatDType | CodeDType | DecodedBlock): number {
  if (isDecodedBlock(dtype)) return blockBound(dtype);
  if (dtype === "F32") return 2 ** -24;
  const { mantissa } = dtype === "F4" ? E2M1 : isFnuz(dtype) ? FNUZ[dtype] : NARROW[dtype];
  return 2 ** -(mantissa + 1);
}

/** Room for the roundings of the quotient and of the product in F32. */
const SLACK = 1 + 2 ** -20;

const MOST_CLIPPED = 1.25 * (1 + 2 ** -8);

const number = new Float32Array(1);
const bits = new Uint32Array(number.buffer);

interface CodeCheck {
  /**
   * Whether a code with this value may stand for a weight: |weight - value| is at most 2^-(mantissa + 1) of the weight, or
   * half of the least subnormal code.
   *
   * @param weight a number
   * @param value  code * scale, F32
   * @param scale  F32
   */
  isWithin(weight: number, value: number, scale: number): boolean;
  /**
   * Whether a weight beyond the largest code stands as that code, and is at most a quarter larger: so far do rules of least
   * squared error clip, which shrink a scale to 0.80 of amax / max at most. The scale may also be rounded to BF16.
   */
  isClipped(weight: number, value: number, scale: number): boolean;
  /** Whether no other code is nearer to the weight. */
  isNearest(weight: number, value: number, scale: number): boolean;
  /** least normal code */
  readonly leastNormal: number;
}

/** The checks for one type of codes. */
export function codeCheck(dtype: CodeDType): CodeCheck {
  const {
    exponent: width,
    max,
    mantissa,
  } = dtype === "F4" ? E2M1 : isFnuz(dtype) ? FNUZ[dtype] : NARROW[dtype];
  const least = (isFnuz(dtype) ? 1 : 2) - 2 ** (width - 1); // exponent of the least normal code
  const relative = roundingBound(dtype) * SLACK;
  const drop = 23 - mantissa;
  const half = 1 << (drop - 1);
  const absolute = 2 ** (least - mantissa - 1) * SLACK;
  return {
    leastNormal: 2 ** least,
    isWithin(weight, value, scale) {
      const error = Math.abs(weight - value);
      return error <= relative * Math.abs(weight) || error <= absolute * scale;
    },
    isClipped(weight, value, scale) {
      const ratio = Math.abs(value) === Math.fround(max * scale) ? weight / value : 0;
      return ratio >= 1 && ratio <= MOST_CLIPPED;
    },
    isNearest(weight, value, scale) {
      if (value !== 0 && weight !== 0 && value > 0 !== weight > 0) return false;
      const exact = Math.min(max, Math.fround(Math.abs(weight) / scale)); // as quantizers divide
      number[0] = Math.abs(value) / scale;
      bits[0] = ((bits[0]! + half) >>> drop) << drop; // the quotient of a rounded product is beside the code
      const code = number[0];
      const stored = (bits[0]! >>> 23) - 127;
      const exponent = Math.max(stored, least);
      const above = 2 ** (exponent - mantissa);
      const isPower = stored > least && (bits[0]! & 0x7fffff) === 0;
      const step = exact < code && isPower ? above / 2 : above;
      return Math.abs(exact - code) <= (step / 2) * SLACK;
    },
  };
}
