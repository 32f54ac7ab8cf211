import { readdirSync, readFileSync } from "node:fs";
import { afterAll, describe, expect, it } from "vitest";
import { createWasmBackend } from "../../kernels/backend/wasm.ts";
import { checkKernels } from "../../kernels/check.ts";
import { kernels } from "../../kernels/index.ts";

const backend = await createWasmBackend({ threads: 1, memoryBytes: 64 << 20 });
afterAll(() => backend[Symbol.asyncDispose]());

it("lists every file that defines a kernel", () => {
  const folder = new URL("../../kernels/", import.meta.url);
  const defined = readdirSync(folder).filter(
    (name) => name.endsWith(".ts") && /: Kernel<\w+> = \{/.test(readFileSync(new URL(name, folder), "utf8")),
  );
  expect(kernels.map(({ id }) => `${id}.ts`).sort()).toEqual(defined.sort());
});

describe("is within its bound of the float64 oracle", () => {
  it.each(kernels)("$id", async (kernel) => {
    const [row] = await checkKernels(backend, [kernel]);
    expect(row, JSON.stringify(row)).toMatchObject({ id: kernel.id, backend: "wasm", ok: true });
    expect(row!.cases).toBeGreaterThanOrEqual(kernel.cases.length);
  });
});
