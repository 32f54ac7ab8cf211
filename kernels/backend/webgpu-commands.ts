/**
 * What the GPU is to do, recorded in order and submitted in batches. Every batch is watched: numbers are only handed
 * out once all that led to them is known to have gone well.
 */
import { IsologitError } from "../../src/core/errors.ts";
import type { Dawn } from "./dawn.ts";

interface Dispatch {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  /** in the order of their bindings, from 1 on */
  readonly buffers: readonly GPUBuffer[];
  /** the uniform, binding 0 */
  readonly numbers: Uint32Array;
  readonly workgroups: readonly [number, number, number];
}

export interface Commands {
  dispatch(dispatch: Dispatch): void;
  /** The first `bytes` of a buffer, which are whole words. */
  copy(from: GPUBuffer, to: GPUBuffer, bytes: number): void;
  submit(): void;
  /** Waits while the GPU is far behind. @throws what went wrong so far, as `proved` */
  throttle(): Promise<void>;
  /** @throws GPU_LOST, GPU_MEMORY or INTERNAL for what was submitted before, in place of `result` */
  checkResult<T>(result: Promise<T>): Promise<T>;
  close(): void;
}

/** Kernels to a batch. A buffer that was given up is freed at a submit only, and a layer has some ten kernels. */
const BATCH = 8;
/** bytes between the uniforms of a batch: the least that any device asks for */
const STRIDE = 256;
/** Batches under way before the host waits: enough to keep the GPU busy. */
const AHEAD = 4;

/** Memory first: what lacks it makes later commands invalid too. */
const SCOPES = ["out-of-memory", "internal", "validation"] as const satisfies readonly GPUErrorFilter[];

export function createCommands(device: GPUDevice, { usage }: Dawn): Commands {
  const uniforms = device.createBuffer({ size: BATCH * STRIDE, usage: usage.UNIFORM | usage.COPY_DST });
  const words = new Uint32Array((BATCH * STRIDE) / 4);
  let encoder: GPUCommandEncoder | undefined;
  let pass: GPUComputePassEncoder | undefined;
  let recorded = 0;
  let fault: IsologitError | undefined;
  let closed = false;
  const underWay: Promise<void>[] = [];

  const blame = (error: IsologitError) => {
    fault ??= error;
  };
  const lost = device.lost.then(({ message }) => {
    if (!closed) blame(new IsologitError("GPU_LOST", `the GPU went away: ${firstLine(message)}`));
  });
  // What no scope sees; without a listener Dawn would print it among the results.
  device.addEventListener("uncapturederror", (event) => {
    event.preventDefault();
    blame(faultOf("validation", event.error.message));
  });
  const watch = () => {
    for (const filter of SCOPES) device.pushErrorScope(filter);
  };
  watch();

  /** Ends the scopes of this batch and begins those of the next. */
  const verdicts = (): Promise<void> => {
    const popped = SCOPES.map(() => device.popErrorScope()); // the last one pushed comes first
    watch();
    return Promise.all(popped).then((errors) => {
      SCOPES.forEach((filter, i) => {
        const error = errors.at(-1 - i);
        if (error) blame(faultOf(filter, error.message));
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
    // Where the device is gone its scopes are too: whoever waits hears of the loss instead.
    const done = Promise.all([verdicts(), device.queue.onSubmittedWorkDone()]).then(
      () => {},
      () => lost,
    );
    underWay.push(done);
    void done.then(() => underWay.splice(underWay.indexOf(done), 1));
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
      if (underWay.length > AHEAD) await underWay[0];
      check();
    },

    async checkResult(result) {
      const before = [...underWay];
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
  return new IsologitError("INTERNAL", `the GPU refused what it was told: ${firstLine(message)}`);
}

const firstLine = (text: string): string => text.trim().split("\n")[0]!;
