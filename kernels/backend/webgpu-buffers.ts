/** Buffers on the GPU. Released ones are used again, since every layer allocates streams of the same sizes. */
import { IsologitError } from "../../src/core/errors.ts";

interface Buffers {
  /** @throws PLAN_MEMORY above the limit, or above the largest buffer of the device */
  allocate(bytes: number): GPUBuffer;
  /** Commands on the buffer may still be queued: later commands on it run after them. */
  release(buffer: GPUBuffer): void;
}

const GRAIN = 256;

/** @param beforeDestroy must submit the recorded commands: a queue rejects commands on destroyed buffers */
export function createBuffers(
  device: GPUDevice,
  usage: number,
  limitBytes: number,
  beforeDestroy: () => void,
): Buffers {
  const idle = new Map<number, GPUBuffer[]>();
  const largest = Math.min(device.limits.maxStorageBufferBindingSize, device.limits.maxBufferSize);
  let used = 0;
  let idleBytes = 0;

  const dropIdle = () => {
    beforeDestroy();
    for (const buffers of idle.values()) for (const buffer of buffers) buffer.destroy();
    idle.clear();
    idleBytes = 0;
  };

  return {
    allocate(bytes) {
      const size = Math.max(GRAIN, Math.ceil(bytes / GRAIN) * GRAIN);
      if (size > largest) {
        const message = `a kernel needs a buffer of ${size} bytes; this GPU allows at most ${largest}`;
        throw new IsologitError(
          "PLAN_MEMORY",
          message,
          {},
          { next: "give fewer `tokens`, or use `backend` wasm" },
        );
      }
      const again = idle.get(size)?.pop();
      if (again !== undefined) {
        idleBytes -= size;
        used += size;
        return again;
      }
      if (used + idleBytes + size > limitBytes) dropIdle();
      if (used + size > limitBytes) {
        const free = limitBytes - used;
        throw new IsologitError(
          "PLAN_MEMORY",
          `the kernels need ${size} more bytes; ${free} of ${limitBytes} bytes are free`,
        );
      }
      used += size;
      return device.createBuffer({ size, usage });
    },

    release(buffer) {
      used -= buffer.size;
      idleBytes += buffer.size;
      const alike = idle.get(buffer.size);
      if (alike === undefined) idle.set(buffer.size, [buffer]);
      else alike.push(buffer);
    },
  };
}
