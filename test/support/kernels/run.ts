/** Runs a kernel on plain arrays. */
import type { Backend, Kernel } from "../../../kernels/kernel.ts";

/** The output, which starts as zeros. Inputs are the operands' stored elements. */
export async function runOn<P>(
  backend: Backend,
  kernel: Kernel<P>,
  p: P,
  inputs: readonly (Float32Array | Uint16Array | Uint8Array)[],
): Promise<Float32Array> {
  const { length } = kernel.output(p);
  const arrays = [...inputs, new Float32Array(length)];
  const regions = arrays.map((array) => backend.allocate(array.byteLength));
  for (const [i, array] of arrays.entries()) {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    await backend.upload(regions[i]!, bytes.length, (view) => view.set(bytes));
  }
  await backend.run(kernel, p, regions.slice(0, -1), regions.at(-1)!);
  const result = (await backend.view(regions.at(-1)!, length)).slice();
  for (const region of regions) backend.release(region);
  return result;
}
