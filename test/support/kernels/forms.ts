/** The backends that run the WGSL and the WASM form of each kernel, and the check of both. */
import { afterAll, expect } from "vitest";
import { createWasmBackend } from "../../../kernels/backend/wasm.ts";
import { checkKernels } from "../../../kernels/check.ts";
import type { Backend, Kernel } from "../../../kernels/kernel.ts";
import { gpuBackend } from "./software-gpu.ts";

export const gpu = await gpuBackend();
/** Without the extensions that faster forms use. */
export const plain = await gpuBackend(256 << 20, []);
export const wasm = await createWasmBackend({ threads: 1, memoryBytes: 64 << 20 });
afterAll(async () => {
  await gpu[Symbol.asyncDispose]();
  await plain[Symbol.asyncDispose]();
  await wasm[Symbol.asyncDispose]();
});

/** The backends, without those that run the same form of the kernel as another one. */
export function formsOf<P>(kernel: Kernel<P>, p: P): readonly Backend[] {
  const textOn = ({ extensions }: Backend) =>
    kernel.wgsl
      .passes(p, extensions)
      .map(({ code }) => code)
      .join();
  return textOn(gpu) === textOn(plain) ? [gpu, wasm] : [gpu, plain, wasm];
}

export async function expectWithinBounds<P>(kernel: Kernel<P>, cases: readonly P[]): Promise<void> {
  for (const p of cases) {
    for (const backend of formsOf(kernel, p)) {
      const [row] = await checkKernels(backend, [{ ...kernel, cases: [p] } as Kernel]);
      expect(row!.ok, `${kernel.id} ${JSON.stringify(p)} ${JSON.stringify(row)}`).toBe(true);
    }
  }
}
