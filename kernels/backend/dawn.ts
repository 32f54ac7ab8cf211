/** Dawn, the GPU of npm `webgpu`. The package is optional: it is looked for, and loaded, when a GPU is first asked for. */
import type * as webgpu from "webgpu";

export interface Dawn {
  readonly create: typeof webgpu.create;
  readonly usage: typeof GPUBufferUsage;
  readonly mode: typeof GPUMapMode;
}

export function dawnIsInstalled(): boolean {
  try {
    return import.meta.resolve("webgpu") !== "";
  } catch {
    return false;
  }
}

/** @throws what the dynamic loader says, where the package has no binary for this machine */
export async function loadDawn(): Promise<Dawn> {
  const { create, globals } = await import("webgpu");
  const { GPUBufferUsage: usage, GPUMapMode: mode } = globals as typeof globalThis; // the package says "Object"
  return { create, usage, mode };
}

const instances = new Map<string, GPU>();

/**
 * What `create` returns, one for each adapter's name, and kept until the process ends: were it collected while a device
 * of it lives, the process would abort.
 */
export function instanceFor({ create }: Dawn, adapterName: string): GPU {
  const known = instances.get(adapterName);
  if (known !== undefined) return known;
  const instance = create([`adapter=${adapterName}`]);
  instances.set(adapterName, instance);
  return instance;
}
