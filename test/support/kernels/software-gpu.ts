/**
 * A GPU for tests, from npm alone. On Linux: SwiftShader, out of the Chromium that a dev dependency carries, with its
 * Vulkan loader. Elsewhere: whatever adapter the system has. A machine without any fails these tests; none is skipped.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { constants, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { brotliDecompressSync } from "node:zlib";
import { type Adapter, findAdapters } from "../../../kernels/backend/adapters.ts";
import { createWebgpuBackend, openDevice } from "../../../kernels/backend/webgpu.ts";
import type { Backend, Extensions } from "../../../kernels/kernel.ts";

const TARBALL = "bin/swiftshader.tar.br";
/** glibc's RTLD_NODELETE, which Node does not name: the library stays although it is no module of Node's. */
const NODELETE = 0x1000;

/** The folder of SwiftShader's files, unpacked once for each version of the package. */
export function swiftshader(): string {
  const entry = createRequire(import.meta.url).resolve("@sparticuz/chromium");
  const root = dirname(dirname(dirname(entry))); // of build/cjs/index.cjs
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string };
  const folder = join(tmpdir(), `isologit-swiftshader-${version}`);
  if (existsSync(folder)) return folder;
  const partial = mkdtempSync(`${folder}-`);
  execFileSync("tar", ["-x", "-C", partial], {
    input: brotliDecompressSync(readFileSync(join(root, TARBALL))),
  });
  try {
    renameSync(partial, folder);
  } catch (error) {
    rmSync(partial, { recursive: true });
    if (!existsSync(folder)) throw error; // another process was faster
  }
  return folder;
}

/** For a process of its own: what makes the loader and SwiftShader be found there. */
export function vulkanEnvironment(): Readonly<Record<string, string>> {
  if (process.platform !== "linux") return {};
  const folder = swiftshader();
  return { LD_LIBRARY_PATH: folder, VK_DRIVER_FILES: join(folder, "vk_swiftshader_icd.json") };
}

/** Loads the Vulkan loader by its path, so that Dawn finds it under its name; a search path is read at the start only. */
function preloadVulkan(): void {
  const { LD_LIBRARY_PATH: folder, ...rest } = vulkanEnvironment();
  if (folder === undefined) return;
  Object.assign(process.env, rest);
  try {
    process.dlopen({ exports: {} }, join(folder, "libvulkan.so.1"), constants.dlopen.RTLD_NOW | NODELETE);
  } catch (error) {
    if (!String(error).includes("did not self-register")) throw error;
  }
}

export async function testAdapter(): Promise<Adapter> {
  preloadVulkan();
  const { found, reason } = await findAdapters();
  if (found.length === 0) throw new Error(`tests of WGSL need an adapter, but ${reason}`);
  return found[0]!;
}

/** @param extensions of those that the adapter has, the ones that shaders may take: all, unless told */
export async function gpuBackend(memoryBytes = 256 << 20, extensions?: Extensions): Promise<Backend> {
  const found = await testAdapter();
  const adapter = extensions === undefined ? found : { ...found, extensions };
  return createWebgpuBackend(adapter, await openDevice(adapter), memoryBytes);
}
