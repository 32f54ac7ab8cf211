/** Measures the speed of a kernel on a backend, for information only: no test uses it. */
import { widthOf } from "../src/core/dtype.ts";
import type { Backend, Kernel, ScriptKernel } from "./kernel.ts";

interface Speed {
  /** in units of the work that `Kernel.benchmark` defines */
  readonly value: number;
  readonly unit: "GFLOP/s" | "GB/s";
}

/** Long compared with the time to start a run and to notice its end. */
const LEAST_SECONDS = 0.2;
/** Long compared with the time to compile. */
const VERY_LONG = 20 * LEAST_SECONDS;

/**
 * Doubles the number of runs until they take long enough. Ignores the first run, which compiles, unless it is very
 * long.
 */
export async function measureSpeed<P>(backend: Backend, kernel: Kernel<P> | ScriptKernel<P>): Promise<Speed> {
  const { p, work, unit } = kernel.benchmark;
  const operands = [...kernel.inputs(p), kernel.output(p)];
  const regions = [];
  for (const { length, dtype } of operands) {
    const bytes = length * widthOf(dtype);
    const region = backend.allocate(bytes);
    await backend.upload(region, bytes, (view) => void view.fill(0x3c)); // a small positive number of every dtype
    regions.push(region);
  }
  const [inputs, output] = [regions.slice(0, -1), regions.at(-1)!];
  const secondsOf = async (runs: number) => {
    const started = performance.now();
    for (let run = 0; run < runs; run++) await backend.run(kernel, p, inputs, output);
    await backend.view(output, 1);
    return (performance.now() - started) / 1000;
  };
  let runs = 1;
  let seconds = await secondsOf(runs);
  if (seconds < VERY_LONG) seconds = await secondsOf(runs);
  while (seconds < LEAST_SECONDS) {
    runs *= 2;
    seconds = await secondsOf(runs);
  }
  for (const region of regions) backend.release(region);
  return { value: (runs * work) / seconds / 1e9, unit };
}
