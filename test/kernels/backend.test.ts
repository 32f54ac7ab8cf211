import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { createHeap } from "../../kernels/backend/heap.ts";
import { createWasmBackend } from "../../kernels/backend/wasm.ts";
import type { Relu2Params } from "../../kernels/definitions/elementwise.ts";
import { add, relu2 } from "../../kernels/index.ts";
import type { Kernel } from "../../kernels/kernel.ts";
import { builtFile } from "../../src/core/built-file.ts";
import { runOn } from "../support/kernels/run.ts";

const memoryBytes = 1 << 20;
/** A kernel that is always worth sharing between threads. */
const shared = <P>(kernel: Kernel<P>): Kernel<P> => ({
  ...kernel,
  wasm: { ...kernel.wasm, work: () => Infinity },
});
const filled = (value: number) => (view: Uint8Array) => {
  new Float32Array(view.buffer, view.byteOffset, view.length / 4).fill(value);
};
/** A kernel whose last items lie outside of the memory. */
const astray: Kernel<Relu2Params> = { ...relu2, wasm: { ...relu2.wasm, items: () => 2 ** 30 } };

describe("the heap", () => {
  it("allocates whole cache lines without overlap and joins released ranges", () => {
    const heap = createHeap(128, 640);
    const spans = [1, 64, 65, 200].map((bytes) => heap.allocate(bytes));
    expect(spans.map(({ address }) => address)).toEqual([128, 192, 256, 384]);
    expect(() => heap.allocate(129)).toThrow(/need 129 more bytes; 128 of 640 bytes are free/);
    for (const i of [0, 2, 1, 3]) heap.free(spans[i]!);
    expect(heap.allocate(640).address).toBe(128);
  });

  it("refuses to free a span that is not allocated", () => {
    const heap = createHeap(0, 640);
    const span = heap.allocate(64);
    heap.free(span);
    expect(() => heap.free(span)).toThrow(expect.objectContaining({ code: "INTERNAL" }));
  });
});

describe("the WASM backend", () => {
  it("reports needed bytes and limit when memory runs out", async () => {
    await using backend = await createWasmBackend({ threads: 1, memoryBytes });
    expect(() => backend.allocate(memoryBytes + 1)).toThrow(
      expect.objectContaining({
        code: "PLAN_MEMORY",
        message: expect.stringMatching(/1048577 .* 1048576 bytes/),
      }),
    );
  });

  it("addresses almost 4 GiB and uses no page before it is written", async () => {
    await using backend = await createWasmBackend({ threads: 1, memoryBytes: 2 ** 33 });
    const before = process.memoryUsage().rss;
    const low = backend.allocate(2 ** 32 - 2 ** 18);
    const high = backend.allocate(64);
    await backend.upload(high, 4, filled(-3));
    await backend.run(add, { count: 1 }, [high, high], high);
    expect(Array.from(await backend.view(high, 1))).toEqual([-6]);
    expect(process.memoryUsage().rss - before).toBeLessThan(2 ** 27);
    backend.release(low);
  });

  it("refuses operands that are too small or too few", async () => {
    await using backend = await createWasmBackend({ threads: 1, memoryBytes });
    const small = backend.allocate(60);
    const large = backend.allocate(64);
    const run = (inputs: (typeof small)[]) => backend.run(add, { count: 16 }, inputs, large);
    await expect(run([large, small])).rejects.toThrow("add needs 64 bytes of b, got 60");
    await expect(run([large])).rejects.toThrow("add needs 3 operands, got 2");
  });

  it("allows a sum to overwrite one of its terms", async () => {
    await using backend = await createWasmBackend({ threads: 2, memoryBytes });
    const [a, b] = [backend.allocate(400), backend.allocate(400)];
    for (const region of [a, b]) await backend.upload(region, 400, filled(0.7));
    const [before] = await backend.view(a, 1);
    await backend.run(shared(add), { count: 100 }, [a, b], a);
    expect(new Set(await backend.view(a, 100))).toEqual(new Set([Math.fround(2 * before!)]));
  });

  it("runs kernels one after another, in the order of the calls", async () => {
    await using backend = await createWasmBackend({ threads: 2, memoryBytes });
    const x = backend.allocate(4096);
    await backend.upload(x, 4096, filled(1));
    const doubled = (i: number) => backend.run(i % 2 ? shared(add) : add, { count: 1024 }, [x, x], x);
    await Promise.all(Array.from({ length: 20 }, (_, i) => doubled(i)));
    expect(new Set(await backend.view(x, 1024))).toEqual(new Set([2 ** 20]));
  });

  it.each([
    ["this thread", 1],
    ["a worker", 2],
  ])("tells of a fault in %s as ours, and goes on", async (_, threads) => {
    await using backend = await createWasmBackend({ threads, memoryBytes });
    const x = backend.allocate(64);
    await expect(backend.run(shared(astray), { count: 16 }, [x], x)).rejects.toMatchObject({
      code: "INTERNAL",
      message: expect.stringContaining("memory access out of bounds"),
    });
    const input = Float32Array.of(-1, 3);
    expect(Array.from(await runOn(backend, shared(relu2), { count: 2 }, [input]))).toEqual([0, 9]);
  });

  it("does not keep the process alive, disposed or not", () => {
    const url = builtFile(import.meta.url.replace("test/kernels", "kernels"), "./backend/wasm.js").href;
    const program = `
      const { createWasmBackend } = await import(${JSON.stringify(url)});
      await createWasmBackend({ threads: 2, memoryBytes: ${memoryBytes} });
      const disposed = await createWasmBackend({ threads: 2, memoryBytes: ${memoryBytes} });
      await disposed[Symbol.asyncDispose]();
      console.log("end of program");`;
    const options = { encoding: "utf8", timeout: 20_000 } as const;
    const out = execFileSync(process.execPath, ["--input-type=module", "--eval", program], options);
    expect(out).toBe("end of program\n");
  });
});
