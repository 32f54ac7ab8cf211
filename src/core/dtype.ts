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

/**
 * Elements and bytes of a block, for the quantised types of ggml. A block has its own scales, and blocks lie along the last
 * dimension. Types that are not among `DECODED_BLOCKS` are stored types only: sizes and digests are known, values are not.
 */
const BLOCKS = {
  Q4_0: { elements: 32, bytes: 18 },
  Q4_1: { elements: 32, bytes: 20 },
  Q5_0: { elements: 32, bytes: 22 },
  Q5_1: { elements: 32, bytes: 24 },
  Q8_0: { elements: 32, bytes: 34 },
  Q2_K: { elements: 256, bytes: 84 },
  Q3_K: { elements: 256, bytes: 110 },
  Q4_K: { elements: 256, bytes: 144 },
  Q5_K: { elements: 256, bytes: 176 },
  Q6_K: { elements: 256, bytes: 210 },
  IQ1_S: { elements: 256, bytes: 50 },
  IQ1_M: { elements: 256, bytes: 56 },
  IQ2_XXS: { elements: 256, bytes: 66 },
  IQ2_XS: { elements: 256, bytes: 74 },
  IQ2_S: { elements: 256, bytes: 82 },
  IQ3_XXS: { elements: 256, bytes: 98 },
  IQ3_S: { elements: 256, bytes: 110 },
  IQ4_NL: { elements: 32, bytes: 18 },
  IQ4_XS: { elements: 256, bytes: 136 },
  TQ1_0: { elements: 256, bytes: 54 },
  TQ2_0: { elements: 256, bytes: 66 },
  MXFP4: { elements: 32, bytes: 17 },
  NVFP4: { elements: 64, bytes: 36 },
} as const;

type BlockDType = keyof typeof BLOCKS;
/** The block types that weights can be cast to. */
export type BlockTarget = (typeof BLOCK_TARGETS)[number];
/** What weights can be cast to. */
export type CastDType = FloatDType | BlockTarget;
export type DType = keyof typeof BITS | BlockDType;
/** The types whose elements are single numbers that kernels, casts and comparisons compute with. */
export type FloatDType = (typeof RECASTS)[RecastKind]["dtype"];

/** The quantised types whose values are decoded: see core/blocks/values.ts. First those of 32 elements, then those of 256. */
export const DECODED_BLOCKS = [
  ...(["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL"] as const),
  ...(["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"] as const),
] as const satisfies readonly BlockDType[];
export type DecodedBlock = (typeof DECODED_BLOCKS)[number];
/** Every type that has values: kernels, comparisons and casts read them. */
export type NumericDType = FloatDType | DecodedBlock;
export type Shape = readonly number[];

export const BLOCK_TARGETS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"] as const;

/** The types of safetensors, without those of blocks. */
export const DTYPES = Object.keys(BITS) as readonly (keyof typeof BITS)[];

export function isBlockDType(dtype: string): dtype is BlockDType {
  return Object.hasOwn(BLOCKS, dtype);
}

export function isDecodedBlock(dtype: DType): dtype is DecodedBlock {
  return (DECODED_BLOCKS as readonly DType[]).includes(dtype);
}

export function isNumeric(dtype: DType): dtype is NumericDType {
  return isFloat(dtype) || isDecodedBlock(dtype);
}

export function isBlockTarget(dtype: DType): dtype is BlockTarget {
  return (BLOCK_TARGETS as readonly DType[]).includes(dtype);
}

/** Number of elements that are stored together, along the last dimension: 1 for types without blocks. */
export function blockElements(dtype: DType): number {
  return isBlockDType(dtype) ? BLOCKS[dtype].elements : 1;
}

/** Whether a text names a type of safetensors. */
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
/**
 * Kinds of files, by llama-quantize's names, with the type of most of their matrices. A kind fixes the type of each tensor by its
 * name and shape; the format that such files belong to has the rule.
 */
export const FILE_KINDS = {
  q8_0: "Q8_0",
  q6_k: "Q6_K",
  q5_k_m: "Q5_K",
  q5_k_s: "Q5_K",
  q5_1: "Q5_1",
  q5_0: "Q5_0",
  q4_k_m: "Q4_K",
  q4_k_s: "Q4_K",
  q4_1: "Q4_1",
  q4_0: "Q4_0",
} as const satisfies Readonly<Record<string, BlockTarget>>;

export type FileKind = keyof typeof FILE_KINDS;
/** Value of the option `dtype`; `keep` casts nothing. */
export type RecastTarget = "keep" | RecastKind | FileKind;
/** Type of a whole model in config.json. */
export type TorchDType = NonNullable<(typeof RECASTS)[RecastKind]["torch"]>;

/** Names of `RECASTS`, in its order. */
export const RECAST_KINDS = Object.keys(RECASTS) as readonly RecastKind[];

/** Values of the option `dtype`. */
export const RECAST_TARGETS = [
  "keep",
  ...RECAST_KINDS,
  ...(Object.keys(FILE_KINDS) as FileKind[]),
] as const satisfies readonly RecastTarget[];

export function isFileKind(target: RecastTarget): target is FileKind {
  return Object.hasOwn(FILE_KINDS, target);
}

/** The type of most matrices after a recast; null: nothing is cast. */
export function mainDType(target: RecastTarget): CastDType | null {
  if (target === "keep") return null;
  return isFileKind(target) ? FILE_KINDS[target] : RECASTS[target].dtype;
}

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

/** Bits of one element; of a block type the exact average, such as 4.5 for Q4_0. */
export function bitsOf(dtype: DType): number {
  return isBlockDType(dtype) ? (8 * BLOCKS[dtype].bytes) / BLOCKS[dtype].elements : BITS[dtype];
}

/**
 * Bytes of one element; of a quantised type the exact average, so that whole blocks have whole bytes.
 *
 * @throws UNSUPPORTED for quantised types that are not decoded; INTERNAL for types whose elements are not whole bytes
 */
export function widthOf(dtype: DType): number {
  if (isDecodedBlock(dtype)) return bitsOf(dtype) / 8;
  if (isBlockDType(dtype)) {
    throw new IsologitError("UNSUPPORTED", `${dtype} is read for its sizes only; its values are not decoded`);
  }
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

/** Bytes of a whole tensor. @throws SIZE_UNSAFE if the size is not a safe integer, or not whole bytes or blocks */
export function bytesOf(dtype: DType, shape: Shape, at: ErrorLocation = {}): number {
  const bits = countOf(shape, at) * bitsOf(dtype);
  const block = blockElements(dtype);
  if ((shape.at(-1) ?? 1) % block !== 0) {
    const message = `rows of ${shape.at(-1) ?? 1} elements are not whole blocks of ${dtype}, which have ${block}`;
    throw new IsologitError("SIZE_UNSAFE", message, at);
  }
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
