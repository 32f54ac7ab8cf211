/** The compiled WebAssembly module and its instances. An instance has no state except the memory. */
import { readFile } from "node:fs/promises";
import { builtFile } from "../src/core/built-file.ts";
import { memoryError } from "./address-space.ts";

/** The first address that the host may use; the constants of the module lie below. */
export const FIRST_ADDRESS = 65536;

type WasmExports = Readonly<Record<string, (...numbers: number[]) => number>>;

let compiled: Promise<WebAssembly.Module> | undefined;

/** An instance with `memory`, which must be shared and have a maximum of 65,536 pages. */
export async function instantiateModule(memory: WebAssembly.Memory): Promise<WasmExports> {
  compiled ??= readFile(builtFile(import.meta.url, "./wasm/kernels.wasm")).then((bytes) =>
    WebAssembly.compile(bytes),
  );
  const env = {
    memory,
    abort: () => {
      throw new Error("a WebAssembly kernel aborted");
    },
  };
  const { exports } = await WebAssembly.instantiate(await compiled, { env });
  return exports as WasmExports; // every export of the module is a function over numbers
}

/**
 * Shared memory of at least `bytes` above FIRST_ADDRESS; the system allocates a page when it is first written.
 *
 * @throws ADDRESS_SPACE where a limit of the process leaves too few addresses
 */
export function createSharedMemory(bytes: number): WebAssembly.Memory {
  const pages = Math.ceil((FIRST_ADDRESS + bytes) / 65536);
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: 65536, shared: true });
  } catch (cause) {
    throw memoryError(cause);
  }
}
