/** A key of our own: the type that each tensor had at the source, because llama.cpp reads many tensors as F32 only. */
import type { Tensor, TypedValue } from "../../src/core/checkpoint.ts";
import type { DType } from "../../src/core/dtype.ts";
import type { WrittenKey } from "../codec/gguf/encode.ts";
import { TENSOR_TYPES } from "../codec/gguf/types.ts";
import type { WantedTensor } from "../format.ts";

const KEY = "isologit.source_types";
/** of a tensor whose type at the source is none of GGUF */
const OTHER = 255;

/** One number a tensor, in the order of the file: that of its type in GGUF. */
export function sourceTypesKey(tensors: readonly WantedTensor[]): WrittenKey {
  const numbers = new Map([...TENSOR_TYPES].map(([number, name]) => [name, number]));
  const value = tensors.map(({ dtype, recast }) => numbers.get(recast?.sourceDtype ?? dtype) ?? OTHER);
  return { key: KEY, type: "u8[]", value: Uint8Array.from(value) };
}

/** By name, the tensors that were widened to F32; undefined if the file does not say it. */
export function widenedIn(
  metadata: readonly TypedValue[],
  tensors: readonly Tensor[],
): ReadonlyMap<string, "BF16" | "F16"> | undefined {
  const value = metadata.find(({ key, type }) => key === KEY && type === "u8[]")?.value;
  if (!Array.isArray(value) || value.length !== tensors.length) return undefined;
  const widened = new Map<string, "BF16" | "F16">();
  for (const [i, { name, dtype }] of tensors.entries()) {
    const source: DType | undefined = TENSOR_TYPES.get(Number(value[i]));
    if (dtype === "F32" && (source === "BF16" || source === "F16")) widened.set(name, source);
  }
  return widened;
}
