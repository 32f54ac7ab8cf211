/** What every kernel must do. Call it in a test file of vitest. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createWasmBackend } from "../../kernels/backend/wasm.ts";
import { checkKernels, runBothForms } from "../../kernels/check.ts";
import type { Backend, Kernel, ScriptKernel } from "../../kernels/kernel.ts";

const MEMORY_BYTES = 64 << 20;

/**
 * Compares a kernel with its float64 oracle on all of its cases, with its bound, and on several numbers of threads. Its
 * shaders are compared by `isologit doctor --kernels`, which uses every GPU of the machine.
 *
 * @example
 * kernelConformance(siluGate);
 */
export function kernelConformance(kernel: Kernel | ScriptKernel): void {
  describe(`kernel ${kernel.id}`, () => {
    let backends: readonly Backend[];
    beforeAll(async () => {
      const open = (threads: number) => createWasmBackend({ threads, memoryBytes: MEMORY_BYTES });
      backends = await Promise.all([1, 2, 3].map(open));
    });
    afterAll(() => Promise.all(backends.map((backend) => backend[Symbol.asyncDispose]())));

    it("is within its bound of the float64 oracle", async () => {
      const [row] = await checkKernels(backends[0]!, [kernel]);
      expect(row, JSON.stringify(row)).toMatchObject({ id: kernel.id, backend: "wasm", ok: true });
      expect(row!.cases).toBeGreaterThanOrEqual(kernel.cases.length);
    });

    it("has cases whose results are not all 0, or no comparison could fail", async () => {
      const results = kernel.cases.map(async (p) => (await runBothForms(backends[0]!, kernel, p, false))[1]);
      const largest = (await Promise.all(results)).map((wanted) => Math.max(...wanted.map(Math.abs)));
      expect(Math.max(...largest)).toBeGreaterThan(0);
    });

    it("gives the same bits on any number of threads", async () => {
      // else too small to share among threads
      const large = "wasm" in kernel ? { ...kernel, wasm: { ...kernel.wasm, work: () => Infinity } } : kernel;
      for (const p of kernel.cases) {
        const [first, ...others] = await Promise.all(
          backends.map(async (backend) => (await runBothForms(backend, large, p, false))[0]),
        );
        for (const other of others)
          expect(Buffer.from(other.buffer).equals(Buffer.from(first!.buffer))).toBe(true);
      }
    });
  });
}
