/**
 * Loads Dawn, the WebGPU implementation in npm `webgpu`. The package has 132 MB, so it is no dependency: who wants a GPU
 * installs it. It is loaded when a GPU is first needed.
 */
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import type * as webgpu from "webgpu";
import type { Machine } from "./vulkan.ts";

export interface Dawn {
  readonly create: typeof webgpu.create;
  readonly usage: typeof GPUBufferUsage;
  readonly mode: typeof GPUMapMode;
}

/** The command after which every way to start Isologit finds Dawn: npx, a global package, a dependency, a clone. */
export const INSTALL_DAWN = "npm install --global webgpu@0.6";

/** The address of the package: beside this one, else among npm's global packages; null if it is in neither place. */
export function dawnAddress(machine: Machine, beside = addressBeside()): string | null {
  if (beside !== null) return beside;
  try {
    return pathToFileURL(createRequire(join(globalFolder(machine), "any.js")).resolve("webgpu")).href;
  } catch {
    return null;
  }
}

function addressBeside(): string | null {
  try {
    return import.meta.resolve("webgpu");
  } catch {
    return null;
  }
}

/** The folder of npm's global packages. npm names its prefix to the programs that it and npx start; else the default. */
function globalFolder({ env, platform }: Machine): string {
  const windows = platform === "win32";
  const usual = windows ? join(env.APPDATA ?? "", "npm") : dirname(dirname(process.execPath));
  return join(env.npm_config_global_prefix ?? usual, windows ? "" : "lib", "node_modules");
}

/** @throws the error of the dynamic loader, if the package has no binary for this machine */
export async function loadDawn(address: string): Promise<Dawn> {
  const { create, globals }: typeof webgpu = await import(/* @vite-ignore */ address);
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
