/** The first bytes of a GGUF, and its numbers for types of values, types of tensors and kinds of files. */
import type { DType } from "../../../src/core/dtype.ts";

export const MAGIC = "GGUF";

/** Types of values by their number, with the bytes of one value; 0: the length is in the file. */
export const VALUE_TYPES = [
  { name: "u8", bytes: 1 },
  { name: "i8", bytes: 1 },
  { name: "u16", bytes: 2 },
  { name: "i16", bytes: 2 },
  { name: "u32", bytes: 4 },
  { name: "i32", bytes: 4 },
  { name: "f32", bytes: 4 },
  { name: "bool", bytes: 1 },
  { name: "string", bytes: 0 },
  { name: "array", bytes: 0 },
  { name: "u64", bytes: 8 },
  { name: "i64", bytes: 8 },
  { name: "f64", bytes: 8 },
] as const;

/** Types of tensors by their number. Q8_1 (9) and Q8_K (15) are for activations, 4, 5, 31 to 33 and 36 to 38 were removed. */
export const TENSOR_TYPES: ReadonlyMap<number, DType> = new Map<number, DType>([
  [0, "F32"],
  [1, "F16"],
  [2, "Q4_0"],
  [3, "Q4_1"],
  [6, "Q5_0"],
  [7, "Q5_1"],
  [8, "Q8_0"],
  [10, "Q2_K"],
  [11, "Q3_K"],
  [12, "Q4_K"],
  [13, "Q5_K"],
  [14, "Q6_K"],
  [16, "IQ2_XXS"],
  [17, "IQ2_XS"],
  [18, "IQ3_XXS"],
  [19, "IQ1_S"],
  [20, "IQ4_NL"],
  [21, "IQ3_S"],
  [22, "IQ2_S"],
  [23, "IQ4_XS"],
  [24, "I8"],
  [25, "I16"],
  [26, "I32"],
  [27, "I64"],
  [28, "F64"],
  [29, "IQ1_M"],
  [30, "BF16"],
  [34, "TQ1_0"],
  [35, "TQ2_0"],
  [39, "MXFP4"],
  [40, "NVFP4"],
]);

/** Names of `general.file_type`: which types llama-quantize gave the matrices. */
export const FILE_TYPES: ReadonlyMap<number, string> = new Map([
  ...["F32", "F16", "Q4_0", "Q4_1"].map((name, i) => [i, name] as const),
  ...["Q8_0", "Q5_0", "Q5_1", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L"].map((name, i) => [7 + i, name] as const),
  ...["Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K"].map((name, i) => [14 + i, name] as const),
  ...["IQ2_XXS", "IQ2_XS", "Q2_K_S", "IQ3_XS", "IQ3_XXS", "IQ1_S"].map((name, i) => [19 + i, name] as const),
  ...["IQ4_NL", "IQ3_S", "IQ3_M", "IQ2_S", "IQ2_M", "IQ4_XS", "IQ1_M"].map(
    (name, i) => [25 + i, name] as const,
  ),
  ...([
    [32, "BF16"],
    [36, "TQ1_0"],
    [37, "TQ2_0"],
    [38, "MXFP4_MOE"],
    [39, "NVFP4"],
  ] as const),
]);
