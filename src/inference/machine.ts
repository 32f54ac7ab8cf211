/** The machine resources of a forward pass: backend, threads and memory. */

import { availableParallelism } from "node:os";
import { refuseBackend, selectBackend } from "../../kernels/backend/select.ts";
import type { Backend } from "../../kernels/kernel.ts";
import type { RunOptions } from "../checkpoint/options.ts";
import { DEFAULT_MEMORY_BYTES } from "../workers/pool.ts";

/** Opens the backend that the options select. @throws NOT_AVAILABLE, USAGE where that backend or device is missing */
export function backendFor(options: RunOptions): Promise<Backend> {
  const { backend = "auto", device } = options;
  const machine = { threads: threadsOf(options), memoryBytes: memoryOf(options) };
  return selectBackend({ backend, ...machine, ...(device !== undefined && { device }) });
}

/** Checks that the selected backend exists, without opening it. @throws NOT_AVAILABLE, USAGE where it does not */
export async function refuseAbsentBackend({ backend = "auto", device }: RunOptions): Promise<void> {
  await refuseBackend({ backend, ...(device !== undefined && { device }) });
}

export function threadsOf({ threads }: Pick<RunOptions, "threads">): number {
  return threads ?? availableParallelism();
}

export function memoryOf({ memoryBytes }: Pick<RunOptions, "memoryBytes">): number {
  return memoryBytes ?? DEFAULT_MEMORY_BYTES;
}
