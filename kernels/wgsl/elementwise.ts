/** The kernels that make each element from the elements at its place: add, copy, relu2, widen. */
import type { AddParams, CopyParams, Relu2Params, WidenParams } from "../definitions/elementwise.ts";
import type { WgslForm } from "../kernel.ts";
import { storedLoader } from "./decode.ts";
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

/** Writes bits: a float store, or the product, may replace a subnormal by zero. */
export const widenWgsl: WgslForm<WidenParams> = {
  passes({ count, dtype, scale }) {
    const { type, code } = storedLoader(dtype, "x", false);
    const body = `
  let bits = bitsOf(vec4u(codeAt(i))).x;
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
