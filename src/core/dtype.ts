/**
 * Element types and all arithmetic on sizes. Only this file converts between bits, bytes and elements, so that a type
 * whose elements are not whole bytes concerns one file.
 */
import { type ErrorLocation, IsologitError } from "./errors.ts";

/** Bits of one element, by the name of the type in safetensors. */
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
/** The types that kernels, casts and comparisons can compute with. */
export type FloatDType = (typeof RECASTS)[RecastKind]["dtype"];
export type Shape = readonly number[];

export const DTYPES = Object.keys(BITS) as readonly DType[];

export function isDType(text: unknown): text is DType {
  return typeof text === "string" && Object.hasOwn(BITS, text);
}

/**
 * The types that weights can be recast to: the name that users write, the element type, and the name that config.json
 * then has as the type of the whole model. FP8 types have no such name: null.
 */
export const RECASTS = {
  f32: { dtype: "F32", torch: "float32" },
  f16: { dtype: "F16", torch: "float16" },
  bf16: { dtype: "BF16", torch: "bfloat16" },
  "fp8-e4m3": { dtype: "F8_E4M3", torch: null },
  "fp8-e5m2": { dtype: "F8_E5M2", torch: null },
} as const;

export type RecastKind = keyof typeof RECASTS;
/** Value of the option `dtype`; `keep` casts nothing. */
export type RecastTarget = "keep" | RecastKind;
/** Type of a whole model in config.json. */
export type TorchDType = NonNullable<(typeof RECASTS)[RecastKind]["torch"]>;

/** Names of `RECASTS`, in its order. */
export const RECAST_KINDS = Object.keys(RECASTS) as readonly RecastKind[];

/** The name under which weights are recast to this type. */
export function recastKind(dtype: FloatDType): RecastKind {
  return RECAST_KINDS.find((kind) => RECASTS[kind].dtype === dtype)!; // a FloatDType is a dtype of the table
}

export function isFloat(dtype: DType): dtype is FloatDType {
  return dtype === "F32" || dtype === "F16" || dtype === "BF16" || isFp8(dtype);
}

export function isFp8(dtype: DType): dtype is "F8_E4M3" | "F8_E5M2" {
  return dtype === "F8_E4M3" || dtype === "F8_E5M2";
}

/** FP8 of AMD's MI300: the exponent bias is larger by 1 than in the OCP type, so the same bits mean half the value. */
export type Fnuz = "F8_E4M3FNUZ" | "F8_E5M2FNUZ";

export function isFnuz(dtype: DType): dtype is Fnuz {
  return dtype === "F8_E4M3FNUZ" || dtype === "F8_E5M2FNUZ";
}

/** What becomes of FNUZ weights. "relabel": the OCP type, with the same codes and half the scale; "keep": a copy. */
export const FNUZ_HANDLINGS = ["relabel", "keep"] as const;
export type FnuzHandling = (typeof FNUZ_HANDLINGS)[number];

/** The OCP type with the fields of a FNUZ type. */
export const OCP_TYPES = { F8_E4M3FNUZ: "F8_E4M3", F8_E5M2FNUZ: "F8_E5M2" } as const;

export function bitsOf(dtype: DType): number {
  return BITS[dtype];
}

/** Bytes of one element. @throws INTERNAL for types whose elements are not whole bytes */
export function widthOf(dtype: DType): number {
  if (BITS[dtype] % 8 !== 0) throw new IsologitError("INTERNAL", `${dtype} elements are not whole bytes`);
  return BITS[dtype] / 8;
}

/** Number of elements. @throws SIZE_UNSAFE if a dimension or the product is not a safe non-negative integer */
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
  // A zero makes the product zero, but the partial products before it must not overflow either.
  if (!Number.isSafeInteger(shape.reduce((a, n) => a * Math.max(n, 1), 1))) {
    throw new IsologitError("SIZE_UNSAFE", `[${shape.join(", ")}] has more than 2^53 elements`, at);
  }
  return count;
}

/** Bytes of a whole tensor. @throws SIZE_UNSAFE if the size is not a safe integer or not whole bytes */
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
