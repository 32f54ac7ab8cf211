/** Norms: layer-norm, rms-norm and gated-norm. */
import { type KernelDefinition, ROUNDING } from "../kernel.ts";

export interface LayerNormParams {
  readonly tokens: number;
  readonly width: number;
  readonly eps: number;
  /** whether the stored gain is the real one minus 1, as in Megatron's "zero-centered gamma" */
  readonly zeroCentered: boolean;
}

/**
 * Layer norm of each token (Ba et al., arXiv 1607.06450): gain * (x - mean) / sqrt(variance + eps) + bias, where the
 * variance is the mean of (x - mean)^2. `out` may be `x`.
 */
export const layerNormDefinition: KernelDefinition<LayerNormParams> = {
  id: "layer-norm",
  inputs: ({ tokens, width, zeroCentered }) => [
    // each kind of hard operand in half of the cases
    { name: "x", length: tokens * width, dtype: "F32", hard: zeroCentered ? "shifted" : "wide" }, // [T, width]
    { name: "gain", length: width, dtype: "F32" },
    { name: "bias", length: width, dtype: "F32" },
  ],
  output: ({ tokens, width }) => ({ name: "out", length: tokens * width, dtype: "F32" }), // [T, width]
  cases: [
    { tokens: 1, width: 1, eps: 1e-5, zeroCentered: true },
    { tokens: 3, width: 5, eps: 1e-5, zeroCentered: false },
    { tokens: 4, width: 30, eps: 1e-3, zeroCentered: true },
    { tokens: 5, width: 64, eps: 1e-6, zeroCentered: false },
    { tokens: 2, width: 1030, eps: 1e-5, zeroCentered: true },
    { tokens: 2, width: 1031, eps: 1e-5, zeroCentered: false },
  ],
  // F64 arithmetic, then one rounding. In F64 the mean has an error of at most width 2^-53 times mean|x|, which is at
  // most 11 standard deviations; with the variance and the oracle this stays below width 2^-48 of |gain x| + |bias|, x
  // normalised. That sum is assumed to be at most twice the largest |out|.
  bound: ({ width }) => ROUNDING * (1 + width * 2 ** -23),
  oracle({ tokens, width, eps, zeroCentered }, [x, gain, bias], out) {
    for (let t = 0; t < tokens; t++) {
      const row = [...x!.subarray(t * width, (t + 1) * width)]; // [width]
      // Without a mean of x: x_i - mean is the mean of x_i - x_j over all j.
      const centred = row.map((v) => row.reduce((sum, other) => sum + (v - other), 0) / width); // [width]
      const variance = centred.reduce((sum, v) => sum + v * v, 0) / width;
      for (let i = 0; i < width; i++) {
        const factor = (gain![i]! + (zeroCentered ? 1 : 0)) / Math.sqrt(variance + eps);
        out[t * width + i] = factor * centred[i]! + bias![i]!;
      }
    }
  },
  wasm: {
    fn: "layerNorm",
    scalars: ({ width, eps, zeroCentered }) => [width, eps, zeroCentered ? 1 : 0],
    items: ({ tokens }) => tokens,
    work: ({ tokens, width }) => 12 * tokens * width,
  },
  benchmark: {
    p: { tokens: 64, width: 4096, eps: 1e-5, zeroCentered: true },
    work: 8 * 64 * 4096,
    unit: "GB/s",
  },
};

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
  /** whether the norm is of y, before the gate */
  readonly normFirst: boolean;
}

/**
 * Mamba-2's norm: first the gate, g = y * silu(z); then each group of channels is divided by its root mean square and
 * multiplied by the gain. With `normFirst` y is divided and multiplied so, and then by silu(z).
 */
export const gatedNormDefinition: KernelDefinition<GatedNormParams> = {
  id: "gated-norm",
  inputs: ({ tokens, width }) => [
    { name: "y", length: tokens * width, dtype: "F32" }, // [T, width]
    { name: "z", length: tokens * width, dtype: "F32", hard: "gate" }, // [T, width]
    { name: "gain", length: width, dtype: "F32" },
  ],
  output: ({ tokens, width }) => ({ name: "out", length: tokens * width, dtype: "F32" }), // [T, width]
  cases: [
    { tokens: 1, width: 2, groups: 1, eps: 1e-5, normFirst: false },
    { tokens: 3, width: 21, groups: 3, eps: 1e-5, normFirst: false },
    { tokens: 5, width: 64, groups: 8, eps: 1e-6, normFirst: false },
    { tokens: 2, width: 1030, groups: 2, eps: 1e-5, normFirst: false },
    { tokens: 4, width: 21, groups: 3, eps: 1e-3, normFirst: true },
    { tokens: 2, width: 600, groups: 1, eps: 1e-5, normFirst: true },
  ],
  // The error of silu is at most 6 roundings (exp 3, a sum, a quotient, a product), of y * silu 7, and of the root mean
  // square 7, too. Their quotient and the gain add one rounding. With `normFirst` the norm has one rounding, and its
  // product with silu adds 7.
  bound: ({ normFirst }) => (normFirst ? 8 : 15) * ROUNDING,
  oracle({ tokens, width, groups, eps, normFirst }, [y, z, gain], out) {
    const run = width / groups;
    const gate = z!.map((v) => v / (1 + Math.exp(-v))); // [T, width]
    const square = new Float64Array(tokens * groups); // [T, groups]
    for (let i = 0; i < out.length; i++) {
      square[Math.floor(i / run)]! += (y![i]! * (normFirst ? 1 : gate[i]!)) ** 2 / run;
    }
    for (let i = 0; i < out.length; i++) {
      out[i] = (y![i]! * gate[i]! * gain![i % width]!) / Math.sqrt(square[Math.floor(i / run)]! + eps);
    }
  },
  wasm: {
    fn: "gatedNorm",
    scalars: ({ width, groups, eps, normFirst }) => [width / groups, groups, eps, normFirst ? 1 : 0],
    items: ({ tokens, groups }) => tokens * groups,
    work: ({ tokens, width }) => 16 * tokens * width,
  },
  benchmark: {
    p: { tokens: 64, width: 8192, groups: 8, eps: 1e-5, normFirst: false },
    work: 12 * 64 * 8192,
    unit: "GB/s",
  },
};
