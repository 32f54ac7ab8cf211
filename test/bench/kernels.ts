/** Speed of each WASM kernel at the shapes of the 8B model, on one thread and on all. */
import { availableParallelism } from "node:os";
import { createWasmBackend } from "../../kernels/backend/wasm.ts";
import { attention, conv1d, gatedNorm, linear, relu2, rmsNorm, ssd } from "../../kernels/index.ts";
import { type Backend, type Kernel, STORED_DTYPES } from "../../kernels/kernel.ts";
import { type NumericDType, widthOf } from "../../src/core/dtype.ts";

/** One kernel at one size, and what its speed counts. */
interface Call {
  readonly title: string;
  /** floating-point operations; 0 where the bytes matter */
  readonly flop: number;
  /** of weights, or of activations in and out where there are none */
  readonly bytes: number;
  /** @returns milliseconds of each of `rounds` runs */
  times(backend: Backend, rounds: number): Promise<number[]>;
}

export async function kernelSpeeds(rounds: number): Promise<void> {
  for (const threads of new Set([1, availableParallelism()])) {
    await using backend = await createWasmBackend({ threads, memoryBytes: 768 * 2 ** 20 });
    console.log(`\n${backend.device.padEnd(42)}ms, best (median)     GFLOP/s, best (median)  GB/s, best`);
    for (const { title, flop, bytes, times } of CALLS) {
      const sorted = (await times(backend, rounds)).sort((a, b) => a - b);
      const [best, median] = [sorted[0]!, sorted[sorted.length >> 1]!];
      const ms = `${best.toFixed(2)} (${median.toFixed(2)})`;
      const speed =
        flop === 0 ? "" : `${(flop / best / 1e6).toFixed(1)} (${(flop / median / 1e6).toFixed(1)})`;
      console.log(title.padEnd(42) + ms.padEnd(22) + speed.padEnd(24) + (bytes / best / 1e6).toFixed(2));
    }
  }
}

/** Runs before those that count: V8 compiles a kernel anew while it first runs. */
const WARM_UP = 3;

function call<P>(title: string, kernel: Kernel<P>, p: P, flop = 0, weightBytes?: number): Call {
  const operands = [...kernel.inputs(p), kernel.output(p)];
  const all = operands.reduce((sum, { length, dtype }) => sum + length * widthOf(dtype), 0);
  const times = async (backend: Backend, rounds: number) => {
    const regions = [];
    for (const { length, dtype } of operands) {
      const region = backend.allocate(length * widthOf(dtype));
      // small numbers in every dtype; zeros would do, but for a page that is all zeros may not be there at all
      await backend.upload(region, region.bytes, (view) => {
        view.fill(0x3c);
      });
      regions.push(region);
    }
    const ms: number[] = [];
    for (let i = 0; i < WARM_UP + rounds; i++) {
      const started = performance.now();
      await backend.run(kernel, p, regions.slice(0, -1), regions.at(-1)!);
      ms.push(performance.now() - started);
    }
    for (const region of regions) backend.release(region);
    return ms.slice(WARM_UP);
  };
  return { title, flop, bytes: weightBytes ?? all, times };
}

function product(tokens: number, rows: number, cols: number, dtype: NumericDType): Call {
  const band = { firstRow: 0, inWidth: cols, inFrom: 0, outWidth: rows, outFrom: 0 };
  const p = { tokens, rows, cols, dtype, scale: 1, ...band };
  const bytes = rows * cols * widthOf(dtype);
  return call(`linear ${rows} x ${cols} ${dtype}, T=${tokens}`, linear, p, 2 * tokens * rows * cols, bytes);
}

const CALLS: readonly Call[] = [
  ...STORED_DTYPES.map((dtype) => product(64, 2048, 4096, dtype)),
  product(64, 192, 21504, "BF16"),
  ...[1, 4, 512].map((tokens) => product(tokens, 2048, 4096, "BF16")),
  ...(["F8_E4M3", "Q8_0", "Q4_K", "Q6_K"] as const).map((dtype) => product(1, 2048, 4096, dtype)),
  ...[64, 512].flatMap((tokens) => [
    call(
      `ssd, T=${tokens}`,
      ssd,
      { tokens, heads: 128, headDim: 64, groups: 8, state: 128, dtMin: 0, dtMax: Infinity },
      5 * tokens * 128 * 64 * 128,
    ),
    call(
      `attention, T=${tokens}`,
      attention,
      { past: 0, tokens, heads: 32, kvHeads: 8, dim: 128, scale: 1 / Math.sqrt(128), window: 0 },
      2 * tokens * tokens * 32 * 128, // half of the pairs, scores and values
    ),
    call(`conv1d, T=${tokens}`, conv1d, { past: 0, tokens, width: 8192, kernel: 4 }),
    call(`rms-norm, T=${tokens}`, rmsNorm, { tokens, width: 4096, eps: 1e-5 }),
    call(`gated-norm, T=${tokens}`, gatedNorm, {
      tokens,
      width: 8192,
      groups: 8,
      eps: 1e-5,
      normFirst: false,
    }),
    call(`relu2, T=${tokens}`, relu2, { count: tokens * 21504 }),
  ]),
];
