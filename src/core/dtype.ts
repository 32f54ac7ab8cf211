/**
 * Element types and all arithmetic on sizes. Bits, bytes and elements are converted here and nowhere else,
 * so that a type whose elements are not whole bytes touches one file.
 */
import { type ErrorLocation, IsologitError } from "./errors.ts";

export type RecastKind = "keep" | "f32" | "f16" | "bf16" | "fp8-e4m3" | "fp8-e5m2";

/** Bits an element takes, by the name that safetensors gives the type. */
const BITS = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const; // prettier-ignore

export type DType = keyof typeof BITS;
/** The types that weights may have and that kernels, casts and comparisons understand. */
export type FloatDType = "F32" | "F16" | "BF16" | "F8_E4M3" | "F8_E5M2";
export type Shape = readonly number[];

export const DTYPES = Object.keys(BITS) as readonly DType[];

export function isDType(text: unknown): text is DType {
  return typeof text === "string" && Object.hasOwn(BITS, text);
}

export function isFloat(dtype: DType): dtype is FloatDType {
  return dtype === "F32" || dtype === "F16" || dtype === "BF16" || isFp8(dtype);
}

export function isFp8(dtype: DType): dtype is "F8_E4M3" | "F8_E5M2" {
  return dtype === "F8_E4M3" || dtype === "F8_E5M2";
}

export function bitsOf(dtype: DType): number {
  return BITS[dtype];
}

/** Bytes of one element. @throws INTERNAL for types whose elements are not whole bytes */
export function widthOf(dtype: DType): number {
  if (BITS[dtype] % 8 !== 0) throw new IsologitError("INTERNAL", `${dtype} elements are not whole bytes`);
  return BITS[dtype] / 8;
}

/** Number of elements. @throws SIZE_UNSAFE when a dimension or the product is not a safe non-negative integer */
export function countOf(shape: Shape, at: ErrorLocation = {}): number {
  let count = 1;
  for (const n of shape) {
    if (!Number.isSafeInteger(n) || n < 0) {
      throw new IsologitError(
        "SIZE_UNSAFE",
        `dimension ${n} of [${shape.join(", ")}] is not a safe size`,
        at,
      );
    }
    count *= n;
  }
  // A zero anywhere makes the product zero; the partial products may not overflow on the way either.
  if (!Number.isSafeInteger(shape.reduce((a, n) => a * Math.max(n, 1), 1))) {
    throw new IsologitError("SIZE_UNSAFE", `[${shape.join(", ")}] has more than 2^53 elements`, at);
  }
  return count;
}

/** Bytes of a whole tensor. @throws SIZE_UNSAFE when they are not a safe integer or not whole bytes */
export function bytesOf(dtype: DType, shape: Shape, at: ErrorLocation = {}): number {
  const bits = countOf(shape, at) * BITS[dtype];
  if (!Number.isSafeInteger(bits) || bits % 8 !== 0) {
    throw new IsologitError(
      "SIZE_UNSAFE",
      `[${shape.join(", ")}] of ${dtype} is ${bits} bits, not whole safe bytes`,
      at,
    );
  }
  return bits / 8;
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((n, i) => n === b[i]);
}

/** C-order strides in elements: [12, 4, 1] for [_, 3, 4]. */
export function stridesOf(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = step;
    step *= shape[i]!;
  }
  return strides;
}
