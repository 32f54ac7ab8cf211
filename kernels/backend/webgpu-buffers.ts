/** Buffers on the GPU, kept for reuse: streams of one width come and go at every layer. */
import { IsologitError } from "../../src/core/errors.ts";

interface Buffers {
  /** @throws PLAN_MEMORY beyond the ceiling, or beyond what the device binds at once */
  allocate(bytes: number): GPUBuffer;
  /** Commands on the buffer may still be queued: whoever takes it next is queued behind them. */
  release(buffer: GPUBuffer): void;
}

const GRAIN = 256;

/** @param beforeDestroy must submit what was recorded: a queue refuses commands on buffers that are gone */
export function createBuffers(
  device: GPUDevice,
  usage: number,
  ceilingBytes: number,
  beforeDestroy: () => void,
): Buffers {
  const idle = new Map<number, GPUBuffer[]>();
  const largest = Math.min(device.limits.maxStorageBufferBindingSize, device.limits.maxBufferSize);
  let taken = 0;
  let kept = 0;

  const dropIdle = () => {
    beforeDestroy();
    for (const buffers of idle.values()) for (const buffer of buffers) buffer.destroy();
    idle.clear();
    kept = 0;
  };

  return {
    allocate(bytes) {
      const size = Math.max(GRAIN, Math.ceil(bytes / GRAIN) * GRAIN);
      if (size > largest) {
        const message = `a kernel needs ${size} bytes in one piece; this GPU binds at most ${largest}`;
        throw new IsologitError(
          "PLAN_MEMORY",
          message,
          {},
          { next: "give fewer --tokens, or use --backend wasm" },
        );
      }
      const again = idle.get(size)?.pop();
      if (again !== undefined) {
        kept -= size;
        taken += size;
        return again;
      }
      if (taken + kept + size > ceilingBytes) dropIdle();
      if (taken + size > ceilingBytes) {
        const free = ceilingBytes - taken;
        throw new IsologitError(
          "PLAN_MEMORY",
          `the kernels need ${size} bytes more; of their ceiling of ${ceilingBytes} bytes ${free} are free`,
        );
      }
      taken += size;
      return device.createBuffer({ size, usage });
    },

    release(buffer) {
      taken -= buffer.size;
      kept += buffer.size;
      const alike = idle.get(buffer.size);
      if (alike === undefined) idle.set(buffer.size, [buffer]);
      else alike.push(buffer);
    },
  };
}
