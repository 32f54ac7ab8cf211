/** The machine resources of a forward pass: backend, threads and memory. */

import { availableParallelism } from "node:os";
import { refuseBackend, selectBackend } from "../../kernels/backend/select.ts";
import type { Backend } from "../../kernels/kernel.ts";
import type { RunOptions } from "../checkpoint/options.ts";
import { kernelsOf } from "../plugins/registry.ts";
import { DEFAULT_MEMORY_BYTES } from "../workers/pool.ts";

/**
 * Opens the backend that the options select.
 *
 * @throws NOT_AVAILABLE, USAGE where that backend or device is missing; PLUGIN_INVALID: two kernels have the same id
 */
export async function backendFor(options: RunOptions): Promise<Backend> {
  await kernelsOf(options);
  const machine = { threads: threadsOf(options), memoryBytes: memoryOf(options) };
  return await selectBackend({ ...selectionOf(options), ...machine });
}

/** Checks that the selected backend exists, without opening it. @throws NOT_AVAILABLE, USAGE where it does not */
export async function refuseAbsentBackend(options: RunOptions): Promise<void> {
  await refuseBackend(selectionOf(options));
}

function selectionOf({ backend = "auto", device, plugins = [] }: RunOptions) {
  const script = plugins.flatMap(({ kernels = [] }) => kernels).find(({ wgsl }) => wgsl === undefined);
  return {
    backend,
    ...(device !== undefined && { device }),
    ...(script !== undefined && { withoutShader: script.id }),
  };
}

export function threadsOf({ threads }: Pick<RunOptions, "threads">): number {
  return threads ?? availableParallelism();
}

export function memoryOf({ memoryBytes }: Pick<RunOptions, "memoryBytes">): number {
  return memoryBytes ?? DEFAULT_MEMORY_BYTES;
}
