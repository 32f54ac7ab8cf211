/** Root-mean-square norms. */
import { type KernelDefinition, ROUNDING } from "../kernel.ts";

export interface RmsNormParams {
  readonly tokens: number;
  readonly width: number;
  readonly eps: number;
}

/** Root-mean-square norm of each token: gain * x / sqrt(mean(x^2) + eps). The gain is used as stored, without "1 +". */
export const rmsNormDefinition: KernelDefinition<RmsNormParams> = {
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
  // F64 arithmetic, then one rounding; the error of F64 is 2^-29 of this rounding for each term.
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
  benchmark: { p: { tokens: 64, width: 4096, eps: 1e-5 }, work: 8 * 64 * 4096, unit: "GB/s" },
};

export interface GatedNormParams {
  readonly tokens: number;
  /** channels of all groups */
  readonly width: number;
  readonly groups: number;
  readonly eps: number;
}

/** Mamba-2's norm: first the gate, g = y * silu(z); then each group of channels is divided by its root mean square. */
export const gatedNormDefinition: KernelDefinition<GatedNormParams> = {
  id: "gated-norm",
  inputs: ({ tokens, width }) => [
    { name: "y", length: tokens * width, dtype: "F32" }, // [T, width]
    { name: "z", length: tokens * width, dtype: "F32", hard: "gate" }, // [T, width]
    { name: "gain", length: width, dtype: "F32" },
  ],
  output: ({ tokens, width }) => ({ name: "out", length: tokens * width, dtype: "F32" }), // [T, width]
  cases: [
    { tokens: 1, width: 2, groups: 1, eps: 1e-5 },
    { tokens: 3, width: 21, groups: 3, eps: 1e-5 },
    { tokens: 5, width: 64, groups: 8, eps: 1e-6 },
    { tokens: 2, width: 1030, groups: 2, eps: 1e-5 },
  ],
  // The error of silu is at most 6 roundings (exp 3, a sum, a quotient, a product), of y * silu 7, and of the root mean
  // square 7, too. Their quotient and the gain add one rounding.
  bound: () => 15 * ROUNDING,
  oracle({ tokens, width, groups, eps }, [y, z, gain], out) {
    const run = width / groups;
    const square = new Float64Array(tokens * groups); // [T, groups]
    for (let i = 0; i < out.length; i++) {
      out[i] = (y![i]! * z![i]!) / (1 + Math.exp(-z![i]!)); // [T, width]
      square[Math.floor(i / run)]! += out[i]! ** 2 / run;
    }
    for (let i = 0; i < out.length; i++) {
      out[i]! *= gain![i % width]! / Math.sqrt(square[Math.floor(i / run)]! + eps);
    }
  },
  wasm: {
    fn: "gatedNorm",
    scalars: ({ width, groups, eps }) => [width / groups, groups, eps],
    items: ({ tokens, groups }) => tokens * groups,
    work: ({ tokens, width }) => 16 * tokens * width,
  },
  benchmark: { p: { tokens: 64, width: 8192, groups: 8, eps: 1e-5 }, work: 12 * 64 * 8192, unit: "GB/s" },
};
