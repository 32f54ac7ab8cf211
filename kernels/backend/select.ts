/** Which backend runs the kernels, and why another does not. */
import { IsologitError } from "../../src/core/errors.ts";
import type { Backend } from "../define.ts";
import { instantiate, sharedMemory } from "../module.ts";
import { createWasmBackend, type WasmOptions } from "./wasm.ts";

export interface BackendRow {
  readonly id: Backend["id"];
  readonly available: boolean;
  readonly device: string | null;
  readonly driver: string | null;
  /** true when a processor does the work, whatever the interface */
  readonly software: boolean;
  /** why it is not available */
  readonly reason: string | null;
}

const WEBGPU: BackendRow = {
  id: "webgpu",
  available: false,
  device: null,
  driver: null,
  software: false,
  reason: "not in this version",
};

/** What could run here; starts no thread. */
export async function probeBackends(): Promise<readonly BackendRow[]> {
  const wasm = { id: "wasm", driver: `V8 ${process.versions.v8}`, software: true } as const;
  try {
    await instantiate(sharedMemory(0));
    return [{ ...wasm, available: true, device: "WASM SIMD", reason: null }, WEBGPU];
  } catch (error) {
    return [{ ...wasm, available: false, device: null, reason: String(error) }, WEBGPU];
  }
}

/**
 * @param options.backend "auto" takes the best that is available
 * @throws NOT_AVAILABLE for a backend that this version lacks, USAGE for a name that is none
 */
export async function selectBackend(options: WasmOptions & { readonly backend: string }): Promise<Backend> {
  switch (options.backend) {
    case "auto":
    case "wasm":
      return createWasmBackend(options);
    case "webgpu":
      throw new IsologitError(
        "NOT_AVAILABLE",
        `backend webgpu: ${WEBGPU.reason}`,
        {},
        { next: "use --backend wasm" },
      );
    default:
      throw new IsologitError("USAGE", `there is no backend "${options.backend}"; use auto or wasm`);
  }
}
