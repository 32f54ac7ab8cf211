/** The kernels that make each element from the elements at its place: add, add-row, copy, relu2, scale, swiglu, widen. */

import { isDecodedBlock } from "../../src/core/dtype.ts";
import type {
  AddParams,
  AddRowParams,
  CopyParams,
  Relu2Params,
  ScaleParams,
  SwigluParams,
  WidenParams,
} from "../definitions/elementwise.ts";
import { ROUNDING, type WgslForm } from "../kernel.ts";
import { storedLoader } from "./decode.ts";
import { SILU_ROUNDINGS, SILU_WGSL } from "./elementary.ts";
import { elementShader, elementWorkgroups } from "./shader.ts";

export const addWgsl: WgslForm<AddParams> = {
  passes: ({ count }) => [
    {
      reads: { a: "f32", b: "f32" },
      writes: { out: "f32" },
      u32: { count },
      code: elementShader("out[i] = a[i] + b[i];"),
      workgroups: elementWorkgroups(count),
    },
  ],
};

export const addRowWgsl: WgslForm<AddRowParams> = {
  passes: ({ tokens, width }) => [
    {
      reads: { x: "f32", bias: "f32" },
      writes: { out: "f32" },
      u32: { count: tokens * width, width },
      code: elementShader("out[i] = x[i] + bias[i % p.width];"),
      workgroups: elementWorkgroups(tokens * width),
    },
  ],
};

/** Copies bits: a float store may replace a subnormal by zero. */
export const copyWgsl: WgslForm<CopyParams> = {
  passes: ({ count, from, at }) => [
    {
      reads: { x: "u32" },
      writes: { out: "u32" },
      u32: { count, first: from, at },
      code: elementShader("out[p.at + i] = x[p.first + i];"),
      workgroups: elementWorkgroups(count),
    },
  ],
};

/** A NaN is not below zero, so it stays NaN. */
export const relu2Wgsl: WgslForm<Relu2Params> = {
  passes: ({ count }) => [
    {
      reads: { x: "f32" },
      writes: { y: "f32" },
      u32: { count },
      code: elementShader("y[i] = select(x[i] * x[i], 0.0, x[i] < 0.0);"),
      workgroups: elementWorkgroups(count),
    },
  ],
};

export const scaleWgsl: WgslForm<ScaleParams> = {
  passes: ({ count, factor }) => [
    {
      reads: { x: "f32" },
      writes: { out: "f32" },
      u32: { count },
      f32: { factor },
      code: elementShader("out[i] = x[i] * p.factor;"),
      workgroups: elementWorkgroups(count),
    },
  ],
};

export const swigluWgsl: WgslForm<SwigluParams> = {
  passes: ({ count }) => [
    {
      reads: { gate: "f32", up: "f32" },
      writes: { out: "f32" },
      u32: { count },
      code: `${SILU_WGSL}\n${elementShader("out[i] = siluOf(gate[i]) * up[i];")}`,
      workgroups: elementWorkgroups(count),
    },
  ],
  bound: () => (SILU_ROUNDINGS + 1) * ROUNDING,
};

/** Writes bits: a float store, or the product, may replace a subnormal by zero. */
export const widenWgsl: WgslForm<WidenParams> = {
  passes({ count, dtype, scale }) {
    const { type, code } = storedLoader(dtype, "x", false);
    // The loader of a quantised type takes multiples of four.
    const bits = isDecodedBlock(dtype) ? "storedBits(i & ~3u)[i & 3u]" : "storedBits(i).x";
    const body = `
  let bits = ${bits};
  y[i] = select(bitcast<u32>(bitcast<f32>(bits) * p.scale), bits, p.scale == 1.0);`;
    return [
      {
        reads: { x: type },
        writes: { y: "u32" },
        u32: { count },
        f32: { scale },
        code: `${code}\n${elementShader(body)}`,
        workgroups: elementWorkgroups(count),
      },
    ];
  },
};
