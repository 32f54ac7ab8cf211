/** The short convolution: one output in each thread, neighbouring channels in neighbouring threads. */
import type { Conv1dParams } from "../definitions/conv1d.ts";
import { ROUNDING, type WgslForm } from "../kernel.ts";
import { SILU_ROUNDINGS, SILU_WGSL } from "./elementary.ts";
import { elementShader, elementWorkgroups } from "./shader.ts";

const CODE = `${SILU_WGSL}
${elementShader(`
  let t = i / p.width;
  let c = i % p.width;
  let now = i + p.past * p.width;
  var sum = bias[c];
  for (var lag = 0u; lag < min(p.kernel, p.past + t + 1u); lag++) {
    sum += taps[c * p.kernel + p.kernel - 1u - lag] * x[now - lag * p.width];
  }
  out[i] = siluOf(sum);`)}`;

export const conv1dWgsl: WgslForm<Conv1dParams> = {
  passes: ({ tokens, past, width, kernel }) => [
    {
      reads: { x: "f32", taps: "f32", bias: "f32" },
      writes: { out: "f32" },
      u32: { count: tokens * width, past, width, kernel },
      code: CODE,
      workgroups: elementWorkgroups(tokens * width),
    },
  ],
  bound: ({ kernel }) => (1.1 * (kernel + 1) ** 2 + SILU_ROUNDINGS) * ROUNDING,
};
