/**
 * Kinds of GGUF files, such as Q4_K_M: which type each tensor gets, by its name and shape, as llama-quantize chooses it without
 * an importance matrix.
 */
import { bitsOf, blockElements, countOf, type DType, type Shape } from "../../src/core/dtype.ts";

interface FileTypeSpec {
  /** the value of `general.file_type` */
  readonly number: number;
  /** the type of most matrices */
  readonly base: DType;
}

export const FILE_TYPES = {
  f32: { number: 0, base: "F32" },
  f16: { number: 1, base: "F16" },
  bf16: { number: 32, base: "BF16" },
  q8_0: { number: 7, base: "Q8_0" },
  q4_0: { number: 2, base: "Q4_0" },
  q4_1: { number: 3, base: "Q4_1" },
  q5_0: { number: 8, base: "Q5_0" },
  q5_1: { number: 9, base: "Q5_1" },
  q4_k_s: { number: 14, base: "Q4_K" },
  q4_k_m: { number: 15, base: "Q4_K" },
  q5_k_s: { number: 16, base: "Q5_K" },
  q5_k_m: { number: 17, base: "Q5_K" },
  q6_k: { number: 18, base: "Q6_K" },
  q2_k: { number: 10, base: "Q2_K" },
  q3_k_m: { number: 12, base: "Q3_K" },
} as const satisfies Record<string, FileTypeSpec>;
export type FileType = keyof typeof FILE_TYPES;

export interface NamedShape {
  /** in GGUF */
  readonly name: string;
  /** slowest dimension first: the last one is a row */
  readonly shape: Shape;
}

interface LayerCounts {
  /** all layers, those of multi-token prediction included */
  readonly layers: number;
  /** of a layer; 0: the model is dense */
  readonly experts: number;
}

export interface TypeChoice {
  readonly dtype: DType;
  /** the type that the kind of file asks for, where rows are not whole blocks of it */
  readonly instead?: DType;
}

/** The type for rows that are no multiple of 256. */
const FALLBACKS: Partial<Record<DType, DType>> = {
  Q2_K: "Q4_0",
  Q3_K: "Q4_0",
  Q4_K: "Q5_0",
  Q5_K: "Q5_1",
  Q6_K: "Q8_0",
};

/** The type of each tensor by its name. Vectors, norms, routers and convolutions are F32: llama.cpp computes with no other type. */
export function tensorTypes(
  fileType: FileType,
  tensors: readonly NamedShape[],
  counts: LayerCounts,
): ReadonlyMap<string, TypeChoice> {
  const rule = ruleOf(fileType, tensors, counts);
  return new Map(
    tensors.toSorted(byLayer).map((tensor) => {
      const wanted = isMatrix(tensor) ? rule(tensor) : "F32";
      const dtype = fittingType(wanted, tensor.shape.at(-1)!);
      return [tensor.name, { dtype, ...(dtype !== wanted && { instead: wanted }) }];
    }),
  );
}

/** Bits of a weight on average. */
export function meanBits(tensors: readonly NamedShape[], types: ReadonlyMap<string, TypeChoice>): number {
  const sizes = tensors.map(({ name, shape }) => [countOf(shape), bitsOf(types.get(name)!.dtype)] as const);
  const weights = sizes.reduce((sum, [count]) => sum + count, 0);
  return sizes.reduce((sum, [count, bits]) => sum + count * bits, 0) / weights;
}

function isMatrix({ name, shape }: NamedShape): boolean {
  const first = shape.findIndex((n) => n !== 1); // dimensions of 1 at the slow end do not count
  if (first < 0 || shape.length - first < 2) return false;
  return name.endsWith("weight") && !/_norm\.weight|ffn_gate_inp\.weight|ssm_conv1d/.test(name);
}

/** The order in which llama-quantize counts: tensors outside of layers by name, then layer by layer, by name. */
function byLayer(a: NamedShape, b: NamedShape): number {
  return layerOf(a.name) - layerOf(b.name) || (a.name < b.name ? -1 : 1);
}

function layerOf(name: string): number {
  return Number(/^blk\.(\d+)\./.exec(name)?.[1] ?? -1);
}

/** The type that a kind of file asks for; called once for each matrix, in order. */
function ruleOf(
  fileType: FileType,
  tensors: readonly NamedShape[],
  { layers, experts }: LayerCounts,
): (tensor: NamedShape) => DType {
  const { base } = FILE_TYPES[fileType];
  if (base === "F32" || base === "F16" || base === "BF16") return () => base;
  const head = tensors.some(({ name }) => name === "output.weight") ? "output.weight" : "token_embd.weight";
  const values = tensors.filter(({ name }) => name.includes("attn_v.weight")).length;
  let value = 0;
  let down = 0;
  return ({ name, shape }) => {
    if (name === head) return base === "Q8_0" || shape.at(-1)! % blockElements(base) !== 0 ? "Q8_0" : "Q6_K";
    if (name.includes("attn_v.weight")) {
      const type = valueType(fileType, value++, values);
      return experts === 8 ? "Q8_0" : (type ?? base);
    }
    if (name.includes("attn_k.weight") && experts === 8) return "Q8_0";
    if (name.includes("ffn_down"))
      return downType(fileType, experts > 0 ? layerOf(name) : down++, layers) ?? base;
    if (name.includes("attn_output.weight")) return outputType(fileType, experts) ?? base;
    return base;
  };
}

/** Whether llama-quantize spends more bits on tensor i of n. */
function getsMoreBits(i: number, n: number): boolean {
  const eighth = Math.floor(n / 8);
  return i < eighth || i >= Math.floor((7 * n) / 8) || (i - eighth) % 3 === 2;
}

/** Of the i-th of n projections to values; undefined: the usual type. */
function valueType(fileType: FileType, i: number, n: number): DType | undefined {
  if (fileType === "q4_k_m" || fileType === "q5_k_m") return getsMoreBits(i, n) ? "Q6_K" : undefined;
  if (fileType === "q4_k_s") return i < 4 ? "Q5_K" : undefined;
  if (fileType === "q3_k_m") return i < 2 ? "Q5_K" : "Q4_K";
  return fileType === "q2_k" ? "Q3_K" : undefined;
}

/** Of a second projection of an MLP; n counts the layers of every kind, so that a dense hybrid never reaches the last eighth. */
function downType(fileType: FileType, i: number, n: number): DType | undefined {
  if (fileType === "q4_k_m" || fileType === "q5_k_m") return getsMoreBits(i, n) ? "Q6_K" : undefined;
  if (fileType === "q4_k_s") return i < Math.floor(n / 8) ? "Q5_K" : undefined;
  if (fileType === "q3_k_m") return i < Math.floor(n / 16) ? "Q5_K" : "Q4_K";
  return fileType === "q2_k" ? "Q3_K" : undefined;
}

/** Of an attention's output. */
function outputType(fileType: FileType, experts: number): DType | undefined {
  if (experts === 8 && ["q2_k", "q3_k_m", "q4_k_s", "q4_k_m"].includes(fileType)) return "Q5_K";
  if (fileType === "q3_k_m") return "Q4_K";
  return fileType === "q2_k" ? "Q3_K" : undefined;
}

function fittingType(wanted: DType, row: number): DType {
  if (row % blockElements(wanted) === 0) return wanted;
  const fallback = FALLBACKS[wanted];
  return fallback !== undefined && row % blockElements(fallback) === 0 ? fallback : "F16";
}
