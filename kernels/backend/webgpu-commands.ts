/**
 * Records commands for the GPU in order and submits them in batches. Error scopes check every batch: a result is
 * returned only if all commands before it succeeded.
 */
import { IsologitError } from "../../src/core/errors.ts";
import type { Dawn } from "./dawn.ts";

interface Dispatch {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  /** in the order of their bindings, starting with binding 1 */
  readonly buffers: readonly GPUBuffer[];
  /** the uniform, binding 0 */
  readonly numbers: Uint32Array;
  readonly workgroups: readonly [number, number, number];
}

export interface Commands {
  dispatch(dispatch: Dispatch): void;
  /** Copies the first `bytes` of a buffer, a multiple of four. */
  copy(from: GPUBuffer, to: GPUBuffer, bytes: number): void;
  submit(): void;
  /** Waits while the GPU has too many batches to do. @throws an earlier fault, as `checkResult` */
  throttle(): Promise<void>;
  /** Returns `result`. @throws GPU_LOST, GPU_MEMORY or INTERNAL if a command submitted before failed */
  checkResult<T>(result: Promise<T>): Promise<T>;
  close(): void;
}

/** Kernels in a batch. Released buffers are freed at a submit only, and a layer has about ten kernels. */
const BATCH = 8;
/** bytes between the uniforms of a batch: the largest minimum of all devices */
const STRIDE = 256;
/** Submitted batches before the host waits: enough to keep the GPU busy. */
const AHEAD = 4;

/** Memory first: missing memory also makes later commands invalid. */
const SCOPES = ["out-of-memory", "internal", "validation"] as const satisfies readonly GPUErrorFilter[];

export function createCommands(device: GPUDevice, { usage }: Dawn): Commands {
  const uniforms = device.createBuffer({ size: BATCH * STRIDE, usage: usage.UNIFORM | usage.COPY_DST });
  const words = new Uint32Array((BATCH * STRIDE) / 4);
  let encoder: GPUCommandEncoder | undefined;
  let pass: GPUComputePassEncoder | undefined;
  let recorded = 0;
  let fault: IsologitError | undefined;
  let closed = false;
  const submitted: Promise<void>[] = [];

  const recordFault = (error: IsologitError) => {
    fault ??= error;
  };
  const lost = device.lost.then(({ message }) => {
    if (!closed)
      recordFault(new IsologitError("GPU_LOST", `the GPU is no longer available: ${firstLine(message)}`));
  });
  // Errors outside the scopes; without a listener Dawn would print them on stdout.
  device.addEventListener("uncapturederror", (event) => {
    event.preventDefault();
    recordFault(faultOf("validation", event.error.message));
  });
  const watch = () => {
    for (const filter of SCOPES) device.pushErrorScope(filter);
  };
  watch();

  /** Ends the error scopes of this batch and starts those of the next; waits for their errors. */
  const collectErrors = (): Promise<void> => {
    const popped = SCOPES.map(() => device.popErrorScope()); // the scope pushed last is popped first
    watch();
    return Promise.all(popped).then((errors) => {
      SCOPES.forEach((filter, i) => {
        const error = errors.at(-1 - i);
        if (error) recordFault(faultOf(filter, error.message));
      });
    });
  };

  const encoding = () => {
    encoder ??= device.createCommandEncoder();
    return encoder;
  };

  const submit = () => {
    pass?.end();
    pass = undefined;
    if (encoder === undefined) return;
    device.queue.writeBuffer(uniforms, 0, words, 0, (recorded * STRIDE) / 4);
    device.queue.submit([encoder.finish()]);
    encoder = undefined;
    recorded = 0;
    // Without a device there are no scopes: the loss of the device is the fault then.
    const done = Promise.all([collectErrors(), device.queue.onSubmittedWorkDone()]).then(
      () => {},
      () => lost,
    );
    submitted.push(done);
    void done.then(() => submitted.splice(submitted.indexOf(done), 1));
  };

  const check = () => {
    if (fault !== undefined) throw fault;
  };

  return {
    dispatch({ pipeline, layout, buffers, numbers, workgroups }) {
      if (recorded === BATCH) submit();
      words.set(numbers, (recorded * STRIDE) / 4);
      const offset = recorded * STRIDE;
      const entries = [
        { binding: 0, resource: { buffer: uniforms, offset, size: numbers.byteLength } },
        ...buffers.map((buffer, i) => ({ binding: i + 1, resource: { buffer } })),
      ];
      pass ??= encoding().beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, device.createBindGroup({ layout, entries }));
      pass.dispatchWorkgroups(...workgroups);
      recorded++;
    },

    copy(from, to, bytes) {
      pass?.end();
      pass = undefined;
      encoding().copyBufferToBuffer(from, 0, to, 0, bytes);
    },

    submit,

    async throttle() {
      if (submitted.length > AHEAD) await submitted[0];
      check();
    },

    async checkResult(result) {
      const before = [...submitted];
      try {
        const value = await result;
        await Promise.all(before);
        check();
        return value;
      } catch (cause) {
        await Promise.all(before);
        check();
        throw new IsologitError(
          "GPU_LOST",
          `the GPU did not answer: ${firstLine(String(cause))}`,
          {},
          { cause },
        );
      }
    },

    close() {
      closed = true;
      submit();
      device.destroy();
    },
  };
}

function faultOf(filter: GPUErrorFilter, message: string): IsologitError {
  if (filter === "out-of-memory") {
    return new IsologitError("GPU_MEMORY", `the GPU has no memory left: ${firstLine(message)}`);
  }
  return new IsologitError("INTERNAL", `the GPU rejected a command: ${firstLine(message)}`);
}

const firstLine = (text: string): string => text.trim().split("\n")[0]!;
