/** What a pass takes of a GPU, byte for byte, where single matrices are larger than all of it. */
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import type { Adapter } from "../../kernels/backend/adapters.ts";
import { createWasmBackend } from "../../kernels/backend/wasm.ts";
import { createWebgpuBackend, openDevice } from "../../kernels/backend/webgpu.ts";
import type { Backend } from "../../kernels/kernel.ts";
import { loadModelWithScales, type ModelWithScales } from "../../src/checkpoint/load.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import { Distance } from "../../src/core/distance.ts";
import { runForwardPass } from "../../src/inference/forward-pass.ts";
import { workFolder } from "../support/goldens.ts";
import { testAdapter } from "../support/kernels/software-gpu.ts";
import { smallModel } from "../support/small.ts";

const folder = join(workFolder(), "wide");
const ids = [3, 14];
/** Bands have a thirty-second of it; the two matrices of the layer have 4 MiB each. */
const memoryBytes = 2 << 20;

let adapter: Adapter;
let model: ModelWithScales;
beforeAll(async () => {
  adapter = await testAdapter();
  await smallModel(folder, "-", { hidden_size: 256, intermediate_size: 8192, vocab_size: 8192 });
  model = await loadModelWithScales(await openCheckpoint(folder), {});
});

/** The first words of each block of logits, which are reduced in bands too. */
async function logitsOn(backend: Backend, tokens: readonly number[] = ids): Promise<Float32Array> {
  const blocks: number[] = [];
  await runForwardPass(
    model,
    tokens,
    backend,
    { memoryBytes },
    {
      residual() {},
      logits: ({ values }) => void blocks.push(...values),
    },
  );
  return Float32Array.from(blocks);
}

/** A device that keeps count, and may bind less than it could. */
async function watched(mostBound?: number) {
  const device = await openDevice(adapter);
  const count = { live: 0, peak: 0, bound: 0 };
  const createBuffer = device.createBuffer.bind(device);
  device.createBuffer = (descriptor) => {
    const buffer = createBuffer(descriptor);
    count.live += buffer.size;
    count.peak = Math.max(count.peak, count.live);
    const destroy = buffer.destroy.bind(buffer);
    buffer.destroy = () => {
      count.live -= buffer.size;
      return destroy();
    };
    return buffer;
  };
  const createBindGroup = device.createBindGroup.bind(device);
  device.createBindGroup = (descriptor) => {
    for (const { resource } of descriptor.entries) {
      const { buffer, size = buffer.size } = resource as GPUBufferBinding;
      count.bound = Math.max(count.bound, size);
    }
    return createBindGroup(descriptor);
  };
  if (mostBound !== undefined) {
    const { maxBufferSize, maxComputeWorkgroupsPerDimension } = device.limits;
    const value = { maxBufferSize, maxComputeWorkgroupsPerDimension, maxStorageBufferBindingSize: mostBound };
    Object.defineProperty(device, "limits", { value });
  }
  return { backend: createWebgpuBackend(adapter, device, memoryBytes), count };
}

it("takes --memory and, beside it, four buffers of a MiB to upload and few to read back", async () => {
  const { backend, count } = await watched();
  await logitsOn(backend);
  await backend[Symbol.asyncDispose]();
  const largestRead = Math.max(4 * ids.length * 256, memoryBytes / 32 / 2);
  expect(count.peak).toBeLessThanOrEqual(memoryBytes + 4 * 2 ** 20 + 4 * largestRead + 2048);
  expect(count.peak).toBeGreaterThan(4 * 2 ** 20); // it was counted
});

describe("a GPU that binds less than a matrix", () => {
  it("is given bands, and gives the logits that WASM gives", async () => {
    const { backend, count } = await watched(100_000);
    const got = await logitsOn(backend);
    await backend[Symbol.asyncDispose]();
    expect(count.bound).toBeLessThanOrEqual(100_000);
    await using wasm = await createWasmBackend({ threads: 1, memoryBytes: 64 << 20 });
    expect(new Distance().add(await logitsOn(wasm), got).relL2).toBeLessThanOrEqual(2e-5);
  });

  it("refuses a prompt whose streams it cannot bind", async () => {
    const { backend } = await watched(100_000);
    const long = logitsOn(backend, Array(4).fill(1));
    await expect(long).rejects.toMatchObject({ code: "PLAN_MEMORY" });
    await backend[Symbol.asyncDispose]();
  });
});
