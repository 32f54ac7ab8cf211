/** The kernels that make each element from the elements at its place: add, add-row, copy, relu2, scale, swiglu, widen. */
import { blockElements, type NumericDType } from "../../src/core/dtype.ts";
import { type KernelDefinition, ROUNDING, STORED_DTYPES } from "../kernel.ts";

export interface AddParams {
  readonly count: number;
}

/** The residual stream: out = a + b. `out` may be `a` or `b`. */
export const addDefinition: KernelDefinition<AddParams> = {
  id: "add",
  inputs: ({ count }) => [
    { name: "a", length: count, dtype: "F32", hard: "wide" },
    { name: "b", length: count, dtype: "F32" },
  ],
  output: ({ count }) => ({ name: "out", length: count, dtype: "F32" }),
  cases: [{ count: 1 }, { count: 4 }, { count: 1027 }],
  bound: () => ROUNDING, // one rounding
  oracle(_, [a, b], out) {
    for (let i = 0; i < out.length; i++) out[i] = a![i]! + b![i]!;
  },
  wasm: { fn: "add", scalars: () => [], items: (p) => p.count, work: (p) => p.count },
  benchmark: { p: { count: 1 << 20 }, work: 12 << 20, unit: "GB/s" },
};

export interface AddRowParams {
  readonly tokens: number;
  readonly width: number;
}

/** The bias of a linear layer: out = x + bias in every row. `out` may be `x`. */
export const addRowDefinition: KernelDefinition<AddRowParams> = {
  id: "add-row",
  inputs: ({ tokens, width }) => [
    { name: "x", length: tokens * width, dtype: "F32", hard: "wide" }, // [T, width]
    { name: "bias", length: width, dtype: "F32" },
  ],
  output: ({ tokens, width }) => ({ name: "out", length: tokens * width, dtype: "F32" }), // [T, width]
  cases: [
    { tokens: 1, width: 1 },
    { tokens: 3, width: 7 },
    { tokens: 5, width: 260 },
  ],
  bound: () => ROUNDING, // one rounding
  oracle({ width }, [x, bias], out) {
    for (let i = 0; i < out.length; i++) out[i] = x![i]! + bias![i % width]!;
  },
  wasm: {
    fn: "addRow",
    scalars: ({ width }) => [width],
    items: ({ tokens }) => tokens,
    work: ({ tokens, width }) => tokens * width,
  },
  benchmark: { p: { tokens: 64, width: 4096 }, work: 8 * 64 * 4096, unit: "GB/s" },
};

export interface CopyParams {
  readonly count: number;
  /** index of the first element in `x` */
  readonly from: number;
  /** its index in `out`; other elements of `out` stay as they are */
  readonly at: number;
}

/** Copies a range of elements from one array into another without change: saves streams for the next run. */
export const copyDefinition: KernelDefinition<CopyParams> = {
  id: "copy",
  inputs: ({ count, from }) => [{ name: "x", length: from + count, dtype: "F32", hard: "wide" }],
  output: ({ count, at }) => ({ name: "out", length: at + count, dtype: "F32" }),
  cases: [
    { count: 1, from: 0, at: 0 },
    { count: 7, from: 2, at: 0 },
    { count: 1027, from: 5, at: 38 },
  ],
  bound: () => 0, // nothing is computed
  oracle({ count, from, at }, [x], out) {
    out.set(x!.subarray(from, from + count), at);
  },
  wasm: {
    fn: "copy",
    scalars: ({ from, at }) => [from, at],
    items: ({ count }) => count,
    work: ({ count }) => count,
  },
  benchmark: { p: { count: 1 << 20, from: 0, at: 0 }, work: 8 << 20, unit: "GB/s" },
};

export interface Relu2Params {
  readonly count: number;
}

/** The activation of Nemotron's MLP: y = max(x, 0)^2. `y` may be `x`. */
export const relu2Definition: KernelDefinition<Relu2Params> = {
  id: "relu2",
  inputs: ({ count }) => [{ name: "x", length: count, dtype: "F32", hard: "wide" }],
  output: ({ count }) => ({ name: "y", length: count, dtype: "F32" }),
  cases: [{ count: 1 }, { count: 4 }, { count: 1027 }],
  bound: () => ROUNDING, // one rounding
  oracle(_, [x], y) {
    for (let i = 0; i < y.length; i++) y[i] = x![i]! > 0 ? x![i]! ** 2 : 0;
  },
  wasm: { fn: "relu2", scalars: () => [], items: (p) => p.count, work: (p) => p.count },
  benchmark: { p: { count: 1 << 20 }, work: 8 << 20, unit: "GB/s" },
};

export interface ScaleParams {
  readonly count: number;
  /** used as the nearest F32 */
  readonly factor: number;
}

/** The multiplier of a stream: out = factor * x. `out` may be `x`. */
export const scaleDefinition: KernelDefinition<ScaleParams> = {
  id: "scale",
  inputs: ({ count }) => [{ name: "x", length: count, dtype: "F32", hard: "wide" }],
  output: ({ count }) => ({ name: "out", length: count, dtype: "F32" }),
  cases: [
    { count: 1, factor: 0.22 },
    { count: 4, factor: 12 },
    { count: 1027, factor: 1 / 3 },
  ],
  bound: () => ROUNDING, // one rounding
  oracle({ factor }, [x], out) {
    for (let i = 0; i < out.length; i++) out[i] = Math.fround(factor) * x![i]!;
  },
  wasm: { fn: "scale", scalars: (p) => [p.factor], items: (p) => p.count, work: (p) => p.count },
  benchmark: { p: { count: 1 << 20, factor: 0.22 }, work: 8 << 20, unit: "GB/s" },
};

export interface SwigluParams {
  readonly count: number;
}

/** The gate of a gated MLP: out = silu(gate) * up, silu(x) = x / (1 + e^-x). `out` may be `gate` or `up`. */
export const swigluDefinition: KernelDefinition<SwigluParams> = {
  id: "swiglu",
  inputs: ({ count }) => [
    { name: "gate", length: count, dtype: "F32", hard: "gate" },
    { name: "up", length: count, dtype: "F32" },
  ],
  output: ({ count }) => ({ name: "out", length: count, dtype: "F32" }),
  cases: [{ count: 1 }, { count: 4 }, { count: 1027 }],
  bound: () => 7 * ROUNDING, // silu has at most 6 (exp 3, a sum, a quotient, a product); the product adds one
  oracle(_, [gate, up], out) {
    for (let i = 0; i < out.length; i++) out[i] = (gate![i]! * up![i]!) / (1 + Math.exp(-gate![i]!));
  },
  wasm: { fn: "swiglu", scalars: () => [], items: (p) => p.count, work: (p) => 16 * p.count },
  benchmark: { p: { count: 1 << 20 }, work: 12 << 20, unit: "GB/s" },
};

export interface WidenParams {
  /** elements; whole blocks of a quantised type */
  readonly count: number;
  readonly dtype: NumericDType;
  /** factor from stored to real values, representable in F32 */
  readonly scale: number;
}

/** Stored elements as F32: scale * x. Embedding rows and vectors become activations here. */
export const widenDefinition: KernelDefinition<WidenParams> = {
  id: "widen",
  inputs: ({ count, dtype }) => [{ name: "x", length: count, dtype, hard: "codes" }],
  output: ({ count }) => ({ name: "y", length: count, dtype: "F32" }),
  cases: STORED_DTYPES.flatMap((dtype) =>
    [
      { count: 1, dtype, scale: 1 },
      { count: 259, dtype, scale: 1 },
      { count: 1022, dtype, scale: Math.fround(0.0173) },
    ].map((p) => ({ ...p, count: Math.ceil(p.count / blockElements(dtype)) * blockElements(dtype) })),
  ),
  bound: ({ scale }) => (scale === 1 ? 0 : ROUNDING), // decoding is exact; the scale is one rounding
  oracle({ scale }, [x], y) {
    for (let i = 0; i < y.length; i++) y[i] = scale * x![i]!;
  },
  wasm: {
    fn: "widen",
    scalars: ({ dtype, scale }) => [STORED_DTYPES.indexOf(dtype), scale],
    items: ({ count, dtype }) => count / blockElements(dtype),
    work: ({ count }) => 2 * count,
    scratch: () => 1024, // 256 decoded floats
  },
  benchmark: { p: { count: 1 << 20, dtype: "BF16", scale: 1 }, work: 6 << 20, unit: "GB/s" },
};
