/**
 * Mamba-2's short convolution over one stream (x, B or C): causal, one filter for each channel, then bias and SiLU.
 * The last tap multiplies the current token; rows before the first count as zeros.
 */
import { type KernelDefinition, ROUNDING } from "../kernel.ts";

export interface Conv1dParams {
  readonly tokens: number;
  /** rows of `x` before the rows of the tokens: inputs without outputs */
  readonly past: number;
  /** channels */
  readonly width: number;
  /** taps of each channel */
  readonly kernel: number;
}

export const conv1dDefinition: KernelDefinition<Conv1dParams> = {
  id: "conv1d",
  inputs: ({ tokens, past, width, kernel }) => [
    { name: "x", length: (past + tokens) * width, dtype: "F32", hard: "gate" }, // [past + T, width]
    { name: "taps", length: width * kernel, dtype: "F32" }, // [width, K]
    { name: "bias", length: width, dtype: "F32" },
  ],
  output: ({ tokens, width }) => ({ name: "out", length: tokens * width, dtype: "F32" }), // [T, width]
  cases: [
    { tokens: 1, past: 0, width: 9, kernel: 4 },
    { tokens: 2, past: 0, width: 8, kernel: 4 },
    { tokens: 7, past: 0, width: 13, kernel: 4 },
    { tokens: 5, past: 0, width: 6, kernel: 2 },
    { tokens: 3, past: 0, width: 70, kernel: 1 },
    { tokens: 40, past: 0, width: 32, kernel: 4 },
    { tokens: 1, past: 3, width: 21, kernel: 4 },
    { tokens: 6, past: 2, width: 10, kernel: 4 },
  ],
  // The error of a sum of K products and a bias is K + 1 roundings of the sum of magnitudes, which is at most K + 1
  // times the largest magnitude; that is assumed to be at most the largest |out|. silu has a slope of at most 1.1 and
  // adds 6.
  bound: ({ kernel }) => (1.1 * (kernel + 1) ** 2 + 6) * ROUNDING,
  oracle({ tokens, past, width, kernel }, [x, taps, bias], out) {
    for (let c = 0; c < width; c++) {
      const sums = new Float64Array(past + tokens + kernel).fill(bias![c]!);
      // Each token adds its value to the later tokens.
      for (let t = 0; t < past + tokens; t++) {
        for (let lag = 0; lag < kernel; lag++) {
          sums[t + lag]! += taps![c * kernel + kernel - 1 - lag]! * x![t * width + c]!;
        }
      }
      for (let t = 0; t < tokens; t++)
        out[t * width + c] = sums[past + t]! / (1 + Math.exp(-sums[past + t]!));
    }
  },
  wasm: {
    fn: "conv1d",
    scalars: ({ tokens, past, width, kernel }) => [tokens, past, width, kernel],
    items: ({ width }) => Math.ceil(width / 16),
    work: ({ tokens, width, kernel }) => tokens * width * (kernel + 12),
    scratch: ({ kernel }) => kernel * 64, // the taps of sixteen channels
  },
  benchmark: { p: { tokens: 64, past: 0, width: 8192, kernel: 4 }, work: 8 * 64 * 8192, unit: "GB/s" },
};
