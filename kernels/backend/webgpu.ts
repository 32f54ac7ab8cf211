/**
 * The WebGPU backend: kernels on a GPU, with Dawn. Runs are recorded and submitted in batches, uploads use a few
 * buffers while the GPU computes, and each shader is compiled once.
 *
 * Besides the allocated regions it has at most four upload and four read-back buffers of the size of the largest
 * transfer.
 */
import { widthOf } from "../../src/core/dtype.ts";
import { IsologitError } from "../../src/core/errors.ts";
import type { Backend, Kernel, Pass, Region, ScriptKernel } from "../kernel.ts";
import { shaderText, uniformNumbers } from "../wgsl/shader.ts";
import { type Adapter, requestAdapter } from "./adapters.ts";
import { checkOperands } from "./operands.ts";
import { createBuffers } from "./webgpu-buffers.ts";
import { createCommands } from "./webgpu-commands.ts";
import { createPipelines } from "./webgpu-pipelines.ts";
import { createGpuStaging } from "./webgpu-staging.ts";

interface GpuRegion extends Region {
  readonly buffer: GPUBuffer;
}

/** @throws GPU_LOST if the adapter provides no device */
export async function openDevice({ dawn, name, extensions }: Adapter): Promise<GPUDevice> {
  const adapter = await requestAdapter(dawn, name);
  if (adapter === null) throw new IsologitError("GPU_LOST", `the GPU ${name} is no longer available`);
  const { maxStorageBufferBindingSize, maxBufferSize } = adapter.limits;
  try {
    return await adapter.requestDevice({
      requiredFeatures: extensions,
      requiredLimits: { maxStorageBufferBindingSize, maxBufferSize },
    });
  } catch (cause) {
    throw new IsologitError("GPU_LOST", `the GPU ${name} cannot be opened: ${String(cause)}`, {}, { cause });
  }
}

/**
 * @param device      a device of `adapter`; the backend closes it
 * @param memoryBytes limit for all regions and scratch together
 */
export function createWebgpuBackend(adapter: Adapter, device: GPUDevice, memoryBytes: number): Backend {
  const { dawn, extensions } = adapter;
  const commands = createCommands(device, dawn);
  const { STORAGE, COPY_SRC, COPY_DST } = dawn.usage;
  const buffers = createBuffers(device, STORAGE | COPY_SRC | COPY_DST, memoryBytes, commands.submit);
  const staging = createGpuStaging(device, dawn, commands);
  const pipelineOf = createPipelines(device);

  /** Copies an input that is also the output: a shader may bind a buffer for reading or for writing, not both. */
  const record = <P>(
    kernel: Kernel<P> | ScriptKernel<P>,
    p: P,
    inputs: readonly Region[],
    output: Region,
  ) => {
    const { wgsl } = kernel;
    if (wgsl === undefined) throw withoutShaderError(kernel.id);
    const temporary: GPUBuffer[] = [];
    const allocateTemporary = (bytes: number) => {
      const buffer = buffers.allocate(bytes);
      temporary.push(buffer);
      return buffer;
    };
    const target = bufferOf(output);
    const byName = new Map<string, GPUBuffer>([[kernel.output(p).name, target]]);
    kernel.inputs(p).forEach(({ name, length, dtype }, i) => {
      let source = bufferOf(inputs[i]!);
      if (source === target) {
        const bytes = Math.ceil((length * widthOf(dtype)) / 4) * 4;
        source = allocateTemporary(bytes);
        commands.copy(target, source, bytes);
      }
      byName.set(name, source);
    });
    for (const [name, bytes] of Object.entries(wgsl.scratch?.(p) ?? {}))
      byName.set(name, allocateTemporary(bytes));
    for (const pass of wgsl.passes(p, extensions)) dispatch(kernel.id, pass, byName);
    for (const buffer of temporary) buffers.release(buffer);
  };

  const dispatch = (kernel: string, pass: Pass, byName: ReadonlyMap<string, GPUBuffer>) => {
    const most = device.limits.maxComputeWorkgroupsPerDimension;
    if (pass.workgroups.some((count) => count > most)) {
      const message = `${kernel} needs ${Math.max(...pass.workgroups)} workgroups; this GPU allows ${most}`;
      throw new IsologitError(
        "PLAN_MEMORY",
        message,
        {},
        { next: "give fewer `tokens`, or use `backend` wasm" },
      );
    }
    const names = [...Object.keys(pass.reads), ...Object.keys(pass.writes)];
    commands.dispatch({
      ...pipelineOf(
        shaderText(pass, extensions),
        Object.keys(pass.reads).length,
        Object.keys(pass.writes).length,
      ),
      buffers: names.map((name) => byName.get(name)!),
      numbers: uniformNumbers(pass),
      workgroups: pass.workgroups,
    });
  };

  return {
    id: "webgpu",
    device: deviceName(adapter),
    extensions,
    allocate: (bytes): GpuRegion => ({ bytes, buffer: buffers.allocate(bytes) }),
    release: (region) => buffers.release(bufferOf(region)),

    async upload(region, bytes, fill) {
      if (bytes > region.bytes) throw new IsologitError("INTERNAL", `${bytes} bytes for ${region.bytes}`);
      await staging.upload(bufferOf(region), bytes, fill);
      await commands.throttle();
    },

    async run(kernel, p, inputs, output) {
      checkOperands(kernel, p, inputs, output);
      record(kernel, p, inputs, output);
      await commands.throttle();
    },

    async view(region, length) {
      return new Float32Array(await staging.download(bufferOf(region), 4 * length));
    },

    async [Symbol.asyncDispose]() {
      await staging.waitForFills();
      commands.close();
    },
  };
}

/** "NVIDIA H100 80GB HBM3, NVIDIA 550.54", as in reports. */
function deviceName({ name, driver, software }: Adapter): string {
  return [name, ...(driver === null ? [] : [driver]), ...(software ? ["software"] : [])].join(", ");
}

/** A kernel of a plug-in may have no shader. */
export const withoutShaderError = (id: string): IsologitError =>
  new IsologitError(
    "NOT_AVAILABLE",
    `the kernel ${id} has no shader, so no GPU can run it`,
    {},
    { next: "use `backend` wasm" },
  );

const bufferOf = (region: Region): GPUBuffer => (region as GpuRegion).buffer; // regions are made by `allocate`
