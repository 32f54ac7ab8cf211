/** Rotary positions: one element of the result in each thread. */
import type { RopeParams } from "../definitions/rope.ts";
import type { WgslForm } from "../kernel.ts";
import { elementShader, elementWorkgroups } from "./shader.ts";

const ROPE = elementShader(`
  let d = i % p.dim;
  if (d >= p.rotary) {
    out[i] = x[i];
    return;
  }
  let half = p.rotary / 2u;
  let isInterleaved = p.interleaved == 1u;
  let isSecond = select(d >= half, d % 2u == 1u, isInterleaved);
  let step = select(half, 1u, isInterleaved);
  let other = x[select(i + step, i - step, isSecond)];
  let at = i / (p.heads * p.dim) * p.rotary + select(d % half, d / 2u, isInterleaved);
  out[i] = x[i] * table[at] + select(-other, other, isSecond) * table[at + half];`);

export const ropeWgsl: WgslForm<RopeParams> = {
  passes: ({ tokens, heads, dim, rotary, interleaved }) => [
    {
      reads: { x: "f32", table: "f32" },
      writes: { out: "f32" },
      u32: { count: tokens * heads * dim, heads, dim, rotary, interleaved: interleaved ? 1 : 0 },
      code: ROPE,
      workgroups: elementWorkgroups(tokens * heads * dim),
    },
  ],
};
