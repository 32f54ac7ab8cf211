/** Root-mean-square norm of each token: gain * x / sqrt(mean(x^2) + eps). The gain is plain: no "1 +". */
import { type Kernel, ROUNDING } from "../kernel.ts";
import { rmsNormWgsl } from "../wgsl/norm.ts";

export interface RmsNormParams {
  readonly tokens: number;
  readonly width: number;
  readonly eps: number;
}

export const rmsNorm: Kernel<RmsNormParams> = {
  id: "rms-norm",
  inputs: ({ tokens, width }) => [
    { name: "x", length: tokens * width, dtype: "F32", hard: "wide" }, // [T, width]
    { name: "gain", length: width, dtype: "F32" },
  ],
  output: ({ tokens, width }) => ({ name: "out", length: tokens * width, dtype: "F32" }), // [T, width]
  cases: [
    { tokens: 1, width: 1, eps: 1e-5 },
    { tokens: 3, width: 5, eps: 1e-5 },
    { tokens: 5, width: 64, eps: 1e-6 },
    { tokens: 2, width: 1030, eps: 1e-5 },
  ],
  // F64 throughout, then one rounding; what F64 itself loses is 2^-29 of that a term.
  bound: ({ width }) => ROUNDING * (1 + width * 2 ** -28),
  oracle({ tokens, width, eps }, [x, gain], out) {
    for (let t = 0; t < tokens; t++) {
      const row = x!.subarray(t * width, (t + 1) * width); // [width]
      const norm = Math.hypot(...row, Math.sqrt(width * eps)); // sqrt(width (mean + eps))
      for (let i = 0; i < width; i++) out[t * width + i] = (gain![i]! * row[i]! * Math.sqrt(width)) / norm;
    }
  },
  wasm: {
    fn: "rmsNorm",
    scalars: ({ width, eps }) => [width, eps],
    items: ({ tokens }) => tokens,
    work: ({ tokens, width }) => 8 * tokens * width,
  },
  wgsl: rmsNormWgsl,
  pace: { p: { tokens: 64, width: 4096, eps: 1e-5 }, work: 8 * 64 * 4096, unit: "GB/s" },
};
