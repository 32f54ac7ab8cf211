import { readdirSync, readFileSync } from "node:fs";
import { afterAll, describe, expect, it } from "vitest";
import { createWasmBackend } from "../../kernels/backend/wasm.ts";
import { checkKernels, runBothForms } from "../../kernels/check.ts";
import { kernels } from "../../kernels/index.ts";
import type { Kernel } from "../../kernels/kernel.ts";

const memoryBytes = 64 << 20;
const backends = await Promise.all([1, 2, 3].map((threads) => createWasmBackend({ threads, memoryBytes })));
const [alone] = backends;
afterAll(() => Promise.all(backends.map((backend) => backend[Symbol.asyncDispose]())));

it("lists every definition of a kernel", () => {
  const folder = new URL("../../kernels/definitions/", import.meta.url);
  const ids = readdirSync(folder).flatMap((name) => {
    const text = readFileSync(new URL(name, folder), "utf8");
    return [...text.matchAll(/: KernelDefinition<\w+> = \{\n {2}id: "([\w-]+)"/g)].map((match) => match[1]);
  });
  expect(kernels.map(({ id }) => id).sort()).toEqual(ids.sort());
});

describe("is within its bound of the float64 oracle", () => {
  it.each(kernels)("$id", async (kernel) => {
    const [row] = await checkKernels(alone!, [kernel]);
    expect(row, JSON.stringify(row)).toMatchObject({ id: kernel.id, backend: "wasm", ok: true });
    expect(row!.cases).toBeGreaterThanOrEqual(kernel.cases.length);
  });
});

describe("gives the same bits on any number of threads", () => {
  it.each(kernels)("$id", async (kernel) => {
    const large: Kernel = { ...kernel, wasm: { ...kernel.wasm, work: () => Infinity } }; // else too small to share
    for (const p of kernel.cases) {
      const [first, ...others] = await Promise.all(
        backends.map(async (backend) => (await runBothForms(backend, large, p, false))[0]),
      );
      for (const other of others)
        expect(Buffer.from(other.buffer).equals(Buffer.from(first!.buffer))).toBe(true);
    }
  });
});
