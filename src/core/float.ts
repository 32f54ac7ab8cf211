/**
 * Exact conversions between F32 and the narrow floats. Ties round to even; subnormals and the sign of zero are kept.
 * These functions are the definition: tests compare the faster kernels with them, bit for bit.
 */
import { widenBlocks } from "./blocks/values.ts";
import { type Fnuz, isDecodedBlock, isFnuz, type NumericDType, widthOf } from "./dtype.ts";
import { IsologitError } from "./errors.ts";

const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);

export function bitsOfF32(value: number): number {
  f32[0] = value;
  return u32[0]!;
}

export function f32OfBits(bits: number): number {
  u32[0] = bits;
  return f32[0]!;
}

/** A float narrower than F32: its exponent bits, its mantissa bits, and the meaning of an exponent of all ones. */
interface NarrowFloat {
  readonly exponent: number;
  readonly mantissa: number;
  /** "ieee": infinities and NaNs; "fn": finite numbers, except that all ones is the only NaN (OCP E4M3) */
  readonly top: "ieee" | "fn";
  /** largest finite value */
  readonly max: number;
}

export const NARROW = {
  BF16: { exponent: 8, mantissa: 7, top: "ieee", max: 3.3895313892515355e38 },
  F16: { exponent: 5, mantissa: 10, top: "ieee", max: 65504 },
  F8_E4M3: { exponent: 4, mantissa: 3, top: "fn", max: 448 },
  F8_E5M2: { exponent: 5, mantissa: 2, top: "ieee", max: 57344 },
} as const satisfies Readonly<Record<string, NarrowFloat>>;

export type NarrowDType = keyof typeof NARROW;

/** FNUZ types: no infinity, no negative zero, whose bits are the only NaN; an exponent of all ones is an ordinary one. */
export const FNUZ = {
  F8_E4M3FNUZ: { exponent: 4, mantissa: 3, max: 240 },
  F8_E5M2FNUZ: { exponent: 5, mantissa: 2, max: 57344 },
} as const satisfies Readonly<Record<Fnuz, Pick<NarrowFloat, "exponent" | "mantissa" | "max">>>;

/** The value of a FNUZ code; F32 can hold it exactly. */
function decodeFnuz(dtype: Fnuz, code: number): number {
  if (code === 0x80) return NaN;
  const { exponent, mantissa } = FNUZ[dtype];
  const sign = code & 0x80 ? -1 : 1;
  const e = (code & 0x7f) >>> mantissa;
  const m = code & ((1 << mantissa) - 1);
  const bias = 1 << (exponent - 1);
  if (e === 0) return sign * m * 2 ** (1 - bias - mantissa);
  return sign * (1 + m * 2 ** -mantissa) * 2 ** (e - bias);
}

/** The value of a narrow float's bits; F32 can hold it exactly. The sign of a NaN is lost: JavaScript has one NaN. */
export function decode(dtype: NarrowDType, bits: number): number {
  const { exponent, mantissa, top } = NARROW[dtype];
  const sign = bits >>> (exponent + mantissa) ? -1 : 1;
  const e = (bits >>> mantissa) & ((1 << exponent) - 1);
  const m = bits & ((1 << mantissa) - 1);
  const bias = (1 << (exponent - 1)) - 1;
  const last = (1 << exponent) - 1;
  if (e === last && top === "ieee") return m === 0 ? sign * Infinity : NaN;
  if (e === last && m === (1 << mantissa) - 1) return NaN;
  if (e === 0) return sign * m * 2 ** (1 - bias - mantissa);
  return sign * (1 + m * 2 ** -mantissa) * 2 ** (e - bias);
}

/**
 * The narrow bits nearest to an F32 value given by its bits; ties to even.
 *
 * Overflow gives infinity if the type has one, else NaN (E4M3 above 464); a caller that wants saturation clamps first.
 * A NaN stays a NaN of the same sign; BF16 and F16 keep the highest bits of its payload.
 */
export function encodeBits(dtype: NarrowDType, bits: number): number {
  const { exponent, mantissa, top } = NARROW[dtype];
  const sign = (bits >>> 31) << (exponent + mantissa);
  const magnitude = bits & 0x7fffffff;
  const ones = ((1 << exponent) - 1) << mantissa;
  if (magnitude > 0x7f800000) {
    if (top === "fn") return sign | ones | ((1 << mantissa) - 1);
    return sign | ones | (1 << (mantissa - 1)) | ((magnitude >>> (23 - mantissa)) & ((1 << mantissa) - 1));
  }
  const bias = (1 << (exponent - 1)) - 1;
  const e = (magnitude >>> 23) - 127; // F32 subnormals have e = -127; of the narrow types only BF16 can hold such small values
  let code: number;
  if (exponent === 8) {
    code = roundShift(magnitude, 23 - mantissa);
  } else if (e >= 1 - bias) {
    // Change the bias, then drop mantissa bits. A carry into the exponent is the correct rounding.
    code = roundShift(magnitude - ((127 - bias) << 23), 23 - mantissa);
  } else {
    const shift = 23 - mantissa + (1 - bias - e);
    code = e === -127 || shift > 25 ? 0 : roundShift((magnitude & 0x7fffff) | 0x800000, shift);
  }
  const limit = top === "fn" ? ones | ((1 << mantissa) - 1) : ones; // the first code that is not a finite number
  return sign | Math.min(code, limit);
}

export function encode(dtype: NarrowDType, value: number): number {
  return encodeBits(dtype, bitsOfF32(value));
}

/** Drops the `shift` low bits and rounds to nearest, ties to even. `shift` is 1 to 25. */
function roundShift(value: number, shift: number): number {
  const kept = value >>> shift;
  const rest = value & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  return rest > half || (rest === half && (kept & 1) === 1) ? kept + 1 : kept;
}

const tables = new Map<NarrowDType | Fnuz, Float32Array>();

/** The value of every code of a narrow type: 256 or 65,536 F32 numbers. The array is shared: do not write to it. */
export function tableOf(dtype: NarrowDType | Fnuz): Float32Array {
  let table = tables.get(dtype);
  if (table === undefined) {
    table = Float32Array.from({ length: 1 << (8 * widthOf(dtype)) }, (_, bits) =>
      isFnuz(dtype) ? decodeFnuz(dtype, bits) : decode(dtype, bits),
    );
    tables.set(dtype, table);
  }
  return table;
}

/** Stored little-endian elements, or whole blocks of them, as F32 values, exactly. No scale of a tensor is applied. */
export function widen(dtype: NumericDType, bytes: Uint8Array): Float32Array {
  if (isDecodedBlock(dtype)) return widenBlocks(dtype, bytes, tableOf("F16"));
  const count = bytes.byteLength / widthOf(dtype);
  if (!Number.isInteger(count)) throw new IsologitError("INTERNAL", `${bytes.byteLength} bytes of ${dtype}`);
  const out = new Float32Array(count);
  if (dtype === "F32") {
    new Uint8Array(out.buffer).set(bytes);
    return out;
  }
  const table = tableOf(dtype);
  if (widthOf(dtype) === 1) for (let i = 0; i < count; i++) out[i] = table[bytes[i]!]!;
  else for (let i = 0; i < count; i++) out[i] = table[bytes[2 * i]! | (bytes[2 * i + 1]! << 8)]!;
  return out;
}

/** Types of weights that need no scale. */
export type PlainFloat = "F32" | "BF16" | "F16";

export const isPlainFloat = (dtype: string): dtype is PlainFloat =>
  dtype === "F32" || dtype === "BF16" || dtype === "F16";

/** The bytes of F32 values in a type, each rounded to nearest, ties to even. The inverse is `widen`. */
export function floatBytes(dtype: PlainFloat, values: Float32Array): Uint8Array {
  if (dtype === "F32") return new Uint8Array(values.slice().buffer);
  const bytes = new Uint8Array(2 * values.length);
  for (const [i, value] of values.entries()) {
    const code = encode(dtype, value);
    bytes[2 * i] = code & 0xff;
    bytes[2 * i + 1] = code >>> 8;
  }
  return bytes;
}

/** F32 values rounded to the nearest BF16 value, ties to even. */
export function roundToBf16(values: Float32Array): Float32Array {
  return values.map((value) => f32OfBits((encodeBits("BF16", bitsOfF32(value)) << 16) >>> 0));
}
