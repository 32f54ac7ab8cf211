/**
 * Loads Dawn, the WebGPU implementation in npm `webgpu`. The package is optional and loaded when a GPU is first needed.
 */
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

/** @throws the error of the dynamic loader, if the package has no binary for this machine */
export async function loadDawn(): Promise<Dawn> {
  const { create, globals } = await import("webgpu");
  const { GPUBufferUsage: usage, GPUMapMode: mode } = globals as typeof globalThis; // the package says "Object"
  return { create, usage, mode };
}

const instances = new Map<string, GPU>();

/**
 * The instance for an adapter's name. Instances are stored until the process ends: garbage collection of an instance
 * that still has a device would abort the process.
 */
export function instanceFor({ create }: Dawn, adapterName: string): GPU {
  const known = instances.get(adapterName);
  if (known !== undefined) return known;
  const instance = create([`adapter=${adapterName}`]);
  instances.set(adapterName, instance);
  return instance;
}
