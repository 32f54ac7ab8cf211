import { execFileSync } from "node:child_process";
import { setTimeout } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Adapter } from "../../kernels/backend/adapters.ts";
import { createWebgpuBackend, openDevice } from "../../kernels/backend/webgpu.ts";
import type { Relu2Params } from "../../kernels/definitions/elementwise.ts";
import { add, relu2 } from "../../kernels/index.ts";
import type { Backend, Kernel, Region } from "../../kernels/kernel.ts";
import { builtFile } from "../../src/core/built-file.ts";
import { testAdapter, vulkanEnvironment } from "../support/kernels/software-gpu.ts";

let adapter: Adapter;
let shared: Backend;
beforeAll(async () => {
  adapter = await testAdapter();
  shared = createWebgpuBackend(adapter, await openDevice(adapter), 1 << 20);
});
afterAll(() => shared[Symbol.asyncDispose]());

const filled = (value: number) => (view: Uint8Array) => {
  new Float32Array(view.buffer, view.byteOffset, view.length / 4).fill(value);
};
const doubled = (backend: Backend, x: Region, count: number) => backend.run(add, { count }, [x, x], x);

describe("the WebGPU backend", () => {
  it("has the name of its device", () => {
    expect(shared).toMatchObject({ id: "webgpu", device: expect.stringContaining(adapter.name) });
  });

  it("reports needed bytes and limit when memory runs out, and uses released memory again", async () => {
    const all = shared.allocate(1 << 20);
    expect(() => shared.allocate(1)).toThrow(
      expect.objectContaining({
        code: "PLAN_MEMORY",
        message: expect.stringMatching(/256 more bytes; 0 of 1048576 /),
      }),
    );
    shared.release(all);
    for (const bytes of [1 << 19, 3000, 1 << 19]) shared.release(shared.allocate(bytes)); // idle buffers are destroyed for larger ones
  });

  it("refuses a buffer larger than the device allows", async () => {
    await using backend = createWebgpuBackend(adapter, await openDevice(adapter), 2 ** 40);
    expect(() => backend.allocate(2 ** 38)).toThrow(
      expect.objectContaining({ code: "PLAN_MEMORY", message: expect.stringContaining("allows at most") }),
    );
  });

  it("refuses operands that are too small or too few", async () => {
    const [small, large] = [shared.allocate(60), shared.allocate(64)];
    const run = (inputs: Region[]) => shared.run(add, { count: 16 }, inputs, large);
    await expect(run([large, small])).rejects.toThrow("add needs 64 bytes of b, got 60");
    await expect(run([large])).rejects.toThrow("add needs 3 operands, got 2");
    for (const region of [small, large]) shared.release(region);
  });

  it("runs in the order of the calls without awaiting them, and allows a sum to overwrite its terms", async () => {
    const x = shared.allocate(4096);
    await shared.upload(x, 4096, filled(1));
    const runs = Array.from({ length: 20 }, () => doubled(shared, x, 1024));
    const early = shared.view(x, 1024);
    runs.push(doubled(shared, x, 1024));
    expect(new Set(await early)).toEqual(new Set([2 ** 20]));
    expect(new Set(await shared.view(x, 1024))).toEqual(new Set([2 ** 21]));
    await Promise.all(runs);
    shared.release(x);
  });

  it("an upload waits for earlier runs that read the old content", async () => {
    const [x, y] = [shared.allocate(4096), shared.allocate(4096)];
    await shared.upload(x, 4096, filled(3));
    for (let i = 0; i < 12; i++) {
      const run = shared.run(relu2, { count: 1024 }, [x], y);
      const seen = shared.view(y, 1024);
      await shared.upload(x, 4096, filled(i));
      await run;
      expect(new Set(await seen)).toEqual(new Set([i === 0 ? 9 : (i - 1) ** 2]));
    }
    for (const region of [x, y]) shared.release(region);
  });

  it("nested and simultaneous fills do not wait for each other forever", async () => {
    const regions = Array.from({ length: 12 }, () => shared.allocate(4096));
    const nested = (i: number) =>
      shared.upload(regions[2 * i]!, 4096, async (outer) => {
        await shared.upload(regions[2 * i + 1]!, 4096, filled(2 * i + 1));
        filled(2 * i)(outer);
      });
    await Promise.all(Array.from({ length: 6 }, (_, i) => nested(i)));
    for (const [i, region] of regions.entries()) expect((await shared.view(region, 1024))[1023]).toBe(i);
    for (const region of regions) shared.release(region);
  });

  it("a failing fill throws its own error, and the next fill works", async () => {
    const x = shared.allocate(64);
    const error = new Error("no such file");
    await expect(shared.upload(x, 64, () => Promise.reject(error))).rejects.toBe(error);
    await shared.upload(x, 64, filled(5));
    expect((await shared.view(x, 16))[15]).toBe(5);
    shared.release(x);
  });
});

it("waits for running fills when it is closed", async () => {
  const backend = createWebgpuBackend(adapter, await openDevice(adapter), 1 << 20);
  const x = backend.allocate(4096);
  let written = false;
  const upload = backend.upload(x, 4096, async (view) => {
    await setTimeout(50);
    view.fill(1); // of a buffer that was unmapped this would be nobody's memory
    written = view.length === 4096;
  });
  await setTimeout(5);
  await backend[Symbol.asyncDispose]();
  expect(written).toBe(true);
  await upload.catch(() => {});
});

/** What is open around every batch of commands. */
const SCOPES = ["out-of-memory", "internal", "validation"] as const;

describe("a fault is reported, and no number is returned after it", () => {
  async function backendWithDevice() {
    const device = await openDevice(adapter);
    const backend = createWebgpuBackend(adapter, device, 1 << 20);
    const x = backend.allocate(64);
    await backend.upload(x, 64, filled(1));
    return { device, backend, x };
  }

  it("a lost device", async () => {
    const { device, backend, x } = await backendWithDevice();
    await doubled(backend, x, 16);
    device.destroy();
    await expect(backend.view(x, 16)).rejects.toMatchObject({ code: "GPU_LOST", exit: 4 });
    await expect(doubled(backend, x, 16)).rejects.toMatchObject({ code: "GPU_LOST" });
    await backend[Symbol.asyncDispose]();
  });

  it("a device lost before the first submit", async () => {
    const device = await openDevice(adapter);
    const backend = createWebgpuBackend(adapter, device, 1 << 20);
    const x = backend.allocate(64);
    device.destroy();
    await expect(backend.view(x, 16)).rejects.toMatchObject({ code: "GPU_LOST" });
    await backend[Symbol.asyncDispose]();
  });

  it("a device lost while numbers were read back", async () => {
    const { device, backend, x } = await backendWithDevice();
    const seen = backend.view(x, 16);
    device.destroy();
    await expect(seen).rejects.toMatchObject({ code: "GPU_LOST" });
    await backend[Symbol.asyncDispose]();
  });

  it("a device lost while its memory was written", async () => {
    const { device, backend, x } = await backendWithDevice();
    const upload = backend.upload(x, 64, (view) => {
      device.destroy();
      filled(2)(view);
    });
    await expect(upload).rejects.toMatchObject({ code: "GPU_LOST" });
    await backend[Symbol.asyncDispose]();
  });

  it("an error outside every error scope", async () => {
    const { device, backend, x } = await backendWithDevice();
    for (const _ of SCOPES) void device.popErrorScope();
    device.createBuffer({ size: 4, usage: 0 });
    for (const filter of SCOPES) device.pushErrorScope(filter);
    await setTimeout(0);
    await expect(backend.view(x, 16)).rejects.toMatchObject({ code: "INTERNAL" });
    await backend[Symbol.asyncDispose]();
  });

  it("more memory than SwiftShader has, if SwiftShader is the adapter", async () => {
    if (!adapter.name.includes("SwiftShader")) return;
    await using backend = createWebgpuBackend(adapter, await openDevice(adapter), 2 ** 40);
    const x = backend.allocate(2 ** 30);
    await expect(backend.view(x, 16)).rejects.toMatchObject({ code: "GPU_MEMORY" });
  });

  it("no memory left", async () => {
    const { device, backend, x } = await backendWithDevice();
    const pop = device.popErrorScope.bind(device);
    let scopes = 0;
    device.popErrorScope = async () => {
      const error = await pop();
      return ++scopes <= 3 ? ({ message: "a test took it all" } as GPUError) : error; // what follows from it included
    };
    await doubled(backend, x, 16);
    const complaint = { code: "GPU_MEMORY", message: expect.stringContaining("a test took it all") };
    await expect(backend.view(x, 16)).rejects.toMatchObject(complaint);
    await expect(doubled(backend, x, 16)).rejects.toMatchObject(complaint);
    await backend[Symbol.asyncDispose]();
  });

  it("a shader that does not compile", async () => {
    const { backend, x } = await backendWithDevice();
    const passes = (p: Relu2Params) =>
      relu2.wgsl.passes(p, []).map((pass) => ({ ...pass, code: "fn main() { nonsense" }));
    const broken: Kernel<Relu2Params> = { ...relu2, wgsl: { passes } };
    await backend.run(broken, { count: 16 }, [x], backend.allocate(64)).catch(() => {});
    await expect(backend.view(x, 16)).rejects.toMatchObject({ code: "INTERNAL" });
    await backend[Symbol.asyncDispose]();
  });
});

it.each(["disposed", "not disposed", "process.exit", "uncaught error"])(
  "does not keep the process alive: %s",
  (how) => {
    const url = (name: string) =>
      JSON.stringify(builtFile(import.meta.url.replace("test/kernels", "kernels"), name).href);
    const program = `
    const { findAdapters } = await import(${url("./backend/adapters.js")});
    const { createWebgpuBackend, openDevice } = await import(${url("./backend/webgpu.js")});
    const { relu2 } = await import(${url("./index.js")});
    const adapter = (await findAdapters()).found[0];
    const backend = createWebgpuBackend(adapter, await openDevice(adapter), 1 << 20);
    const x = backend.allocate(64);
    await backend.upload(x, 64, () => {});
    const pending = backend.run(relu2, { count: 16 }, [x], backend.allocate(64));
    console.log("end of program");
    if (${JSON.stringify(how)} === "disposed") await backend[Symbol.asyncDispose]();
    if (${JSON.stringify(how)} === "process.exit") process.exit(0);
    if (${JSON.stringify(how)} === "uncaught error") { process.exitCode = 7; throw new Error("thrown"); }`;
    const run = () =>
      execFileSync(process.execPath, ["--input-type=module", "--eval", program], {
        ...{ encoding: "utf8", timeout: 20_000, stdio: "pipe" },
        env: { ...process.env, ...vulkanEnvironment() },
      });
    if (how !== "uncaught error") expect(run()).toBe("end of program\n");
    else expect(run).toThrow(expect.objectContaining({ status: 1, signal: null }));
  },
);
