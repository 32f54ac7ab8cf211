/**
 * Kinds of GGUF files, such as Q4_K_M: which type each tensor gets, by its name and shape, as llama-quantize chooses it without
 * an importance matrix.
 */
import { blockElements, type DType, FILE_KINDS } from "../../src/core/dtype.ts";
import type { NamedShape, TypeChoice } from "../format.ts";

/** The type of most matrices. The kinds beside FILE_KINDS are plain, or are not written here. */
const BASES = {
  ...FILE_KINDS,
  ...({ f32: "F32", f16: "F16", bf16: "BF16", q2_k: "Q2_K", q3_k_m: "Q3_K" } as const),
} as const satisfies Readonly<Record<string, DType>>;

export type GgufFileKind = keyof typeof BASES;

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
  kind: GgufFileKind,
  tensors: readonly NamedShape[],
): ReadonlyMap<string, TypeChoice> {
  const rule = ruleOf(kind, tensors);
  return new Map(
    tensors.toSorted(byLayer).map((tensor) => {
      const wanted = isMatrix(tensor) ? rule(tensor) : "F32";
      const dtype = fittingType(wanted, tensor.shape.at(-1)!);
      return [tensor.name, { dtype, ...(dtype !== wanted && { instead: wanted }) }];
    }),
  );
}

/** Types of matrices, fewest bits first: for rows of whole blocks of 256, and of 32. */
const LADDERS = {
  256: ["Q4_K", "Q5_K", "Q6_K", "Q8_0", "F16"],
  32: ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16"],
} as const satisfies Readonly<Record<number, readonly DType[]>>;

/** All types that are worth a choice for each tensor: each next one of a matrix has more bits and is more exact. */
export function possibleTypes(tensors: readonly NamedShape[]): ReadonlyMap<string, readonly DType[]> {
  return new Map(
    tensors.map((tensor): [string, readonly DType[]] => {
      const row = tensor.shape.at(-1)!;
      if (!isMatrix(tensor)) return [tensor.name, ["F32"]];
      if (row % 32 !== 0) return [tensor.name, ["F16"]];
      return [tensor.name, LADDERS[row % 256 === 0 ? 256 : 32]];
    }),
  );
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
function ruleOf(kind: GgufFileKind, tensors: readonly NamedShape[]): (tensor: NamedShape) => DType {
  const base: DType = BASES[kind];
  if (base === "F32" || base === "F16" || base === "BF16") return () => base;
  const head = tensors.some(({ name }) => name === "output.weight") ? "output.weight" : "token_embd.weight";
  const layers = 1 + tensors.reduce((most, { name }) => Math.max(most, layerOf(name)), 0);
  // the router has a row for each expert; 0: the model is dense
  const experts = tensors.find(({ name }) => name.endsWith(".ffn_gate_inp.weight"))?.shape[0] ?? 0;
  const values = tensors.filter(({ name }) => name.includes("attn_v.weight")).length;
  let value = 0;
  let down = 0;
  return ({ name, shape }) => {
    if (name === head) return base === "Q8_0" || shape.at(-1)! % blockElements(base) !== 0 ? "Q8_0" : "Q6_K";
    if (name.includes("attn_v.weight")) {
      const type = valueType(kind, value++, values);
      return experts === 8 ? "Q8_0" : (type ?? base);
    }
    if (name.includes("attn_k.weight") && experts === 8) return "Q8_0";
    if (name.includes("ffn_down"))
      return downType(kind, experts > 0 ? layerOf(name) : down++, layers) ?? base;
    if (name.includes("attn_output.weight")) return outputType(kind, experts) ?? base;
    return base;
  };
}

/** Whether llama-quantize spends more bits on tensor i of n. */
function getsMoreBits(i: number, n: number): boolean {
  const eighth = Math.floor(n / 8);
  return i < eighth || i >= Math.floor((7 * n) / 8) || (i - eighth) % 3 === 2;
}

/** Of the i-th of n projections to values; undefined: the usual type. */
function valueType(kind: GgufFileKind, i: number, n: number): DType | undefined {
  if (kind === "q4_k_m" || kind === "q5_k_m") return getsMoreBits(i, n) ? "Q6_K" : undefined;
  if (kind === "q4_k_s") return i < 4 ? "Q5_K" : undefined;
  if (kind === "q3_k_m") return i < 2 ? "Q5_K" : "Q4_K";
  return kind === "q2_k" ? "Q3_K" : undefined;
}

/** Of a second projection of an MLP; n counts the layers of every kind, so that a dense hybrid never reaches the last eighth. */
function downType(kind: GgufFileKind, i: number, n: number): DType | undefined {
  if (kind === "q4_k_m" || kind === "q5_k_m") return getsMoreBits(i, n) ? "Q6_K" : undefined;
  if (kind === "q4_k_s") return i < Math.floor(n / 8) ? "Q5_K" : undefined;
  if (kind === "q3_k_m") return i < Math.floor(n / 16) ? "Q5_K" : "Q4_K";
  return kind === "q2_k" ? "Q3_K" : undefined;
}

/** Of an attention's output. */
function outputType(kind: GgufFileKind, experts: number): DType | undefined {
  if (experts === 8 && ["q2_k", "q3_k_m", "q4_k_s", "q4_k_m"].includes(kind)) return "Q5_K";
  if (kind === "q3_k_m") return "Q4_K";
  return kind === "q2_k" ? "Q3_K" : undefined;
}

function fittingType(wanted: DType, row: number): DType {
  if (row % blockElements(wanted) === 0) return wanted;
  const fallback = FALLBACKS[wanted];
  return fallback !== undefined && row % blockElements(fallback) === 0 ? fallback : "F16";
}
