/** The dtypes that Megatron's files can hold. */
import type { DType } from "../../src/core/dtype.ts";

/** Name of a dtype in torch, and the class of its storage. Newer types (FP8) have no such class. */
export const TORCH_NAMES: { readonly [K in DType]?: readonly [dtype: string, storage: string] } = {
  BF16: ["bfloat16", "BFloat16Storage"],
  F16: ["float16", "HalfStorage"],
  F32: ["float32", "FloatStorage"],
  F64: ["float64", "DoubleStorage"],
  U8: ["uint8", "ByteStorage"],
  I8: ["int8", "CharStorage"],
  I16: ["int16", "ShortStorage"],
  I32: ["int32", "IntStorage"],
  I64: ["int64", "LongStorage"],
  BOOL: ["bool", "BoolStorage"],
};

/** Types that can be written into Megatron's files. */
export const TORCH_DTYPES = Object.keys(TORCH_NAMES) as readonly DType[];
