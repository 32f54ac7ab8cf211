/** Chooses the backend that runs the kernels. */
import { IsologitError } from "../../src/core/errors.ts";
import type { Backend, Extensions } from "../kernel.ts";
import { createSharedMemory, instantiateModule } from "../module.ts";
import { type Adapter, type Adapters, DAWN_MISSING, findAdapters } from "./adapters.ts";
import { createWasmBackend, type WasmOptions } from "./wasm.ts";
import { createWebgpuBackend, openDevice, withoutShaderError } from "./webgpu.ts";

interface BackendRow {
  readonly id: Backend["id"];
  readonly available: boolean;
  readonly device: string | null;
  readonly driver: string | null;
  /** true if it computes on a CPU */
  readonly software: boolean;
  /** WGSL extensions that its shaders use */
  readonly extensions: Extensions;
  /** why it is not available */
  readonly reason: string | null;
}

interface Selection extends WasmOptions {
  /** "auto" uses a hardware GPU if there is one, else WASM */
  readonly backend: string;
  /** part of the name of a GPU, in upper or lower case */
  readonly device?: string;
  /** id of a kernel of a plug-in that has no shader: "auto" then uses WASM */
  readonly withoutShader?: string;
}

/** The backends of this machine, with one row for each GPU; starts no thread and opens no device. */
export async function probeBackends(): Promise<readonly BackendRow[]> {
  return [await probeWasm(), ...gpuRows(await findAdapters())];
}

async function probeWasm(): Promise<BackendRow> {
  const wasm = { id: "wasm", driver: `V8 ${process.versions.v8}`, software: true, extensions: [] } as const;
  try {
    await instantiateModule(createSharedMemory(0));
    return { ...wasm, available: true, device: "WASM SIMD", reason: null };
  } catch (error) {
    return { ...wasm, available: false, device: null, reason: String(error) };
  }
}

export function gpuRows({ found, reason, install }: Adapters): readonly BackendRow[] {
  if (found.length === 0) {
    const nothing = { device: null, driver: null, software: false, extensions: [] };
    const missing = [...new Set([reason, DAWN_MISSING])].join("; ");
    const why = install === undefined ? reason : `${missing}; this installs it: ${install}`;
    return [{ id: "webgpu", available: false, ...nothing, reason: why }];
  }
  return found.map(({ name, driver, software, extensions }) => ({
    ...{ id: "webgpu", available: true, device: name, driver, software, extensions, reason: null },
  }));
}

/**
 * @throws NOT_AVAILABLE if there is no such GPU, with the reason, or if a kernel has no shader; USAGE for an unknown backend, and for the name of a
 * GPU
 *         together with "wasm"
 */
export async function selectBackend(selection: Selection): Promise<Backend> {
  const { backend, device, withoutShader, ...options } = selection;
  refuseWithoutShader(selection);
  switch (backend) {
    case "auto":
      return device === undefined
        ? openAutomatically(options, withoutShader)
        : openAdapter(chooseAdapter(await findAdapters(), device), options);
    case "webgpu":
      return openAdapter(chooseAdapter(await findAdapters(), device ?? ""), options);
    case "wasm":
      if (device !== undefined) throw unusedDeviceError(device);
      return createWasmBackend(options);
    default:
      throw unknownBackendError(backend);
  }
}

/**
 * Throws the errors of `selectBackend` without opening a device, so that a command can fail before hours of work.
 *
 * @throws NOT_AVAILABLE, USAGE
 */
export async function refuseBackend(
  selection: Pick<Selection, "backend" | "device" | "withoutShader">,
): Promise<void> {
  const { backend, device } = selection;
  refuseWithoutShader(selection);
  if (backend === "webgpu" || (backend === "auto" && device !== undefined)) {
    chooseAdapter(await findAdapters(), device ?? "");
  } else if (backend !== "auto" && (backend !== "wasm" || device !== undefined)) {
    throw backend === "wasm" ? unusedDeviceError(device!) : unknownBackendError(backend);
  }
}

/** @throws NOT_AVAILABLE where a GPU is asked for and a kernel cannot run on it */
function refuseWithoutShader({
  backend,
  device,
  withoutShader,
}: Pick<Selection, "backend" | "device" | "withoutShader">): void {
  const wantsGpu = backend === "webgpu" || (backend === "auto" && device !== undefined);
  if (wantsGpu && withoutShader !== undefined) throw withoutShaderError(withoutShader);
}

function unusedDeviceError(device: string): IsologitError {
  const next = "omit `device`, or use `backend` webgpu";
  return new IsologitError(
    "USAGE",
    `\`device\` ${device} is the name of a GPU; the backend wasm uses none`,
    {},
    { next },
  );
}

function unknownBackendError(backend: string): IsologitError {
  return new IsologitError("USAGE", `there is no backend "${backend}"; use auto, webgpu or wasm`);
}

/** Opens every backend of this machine in turn, software GPUs included; the caller closes each. */
export async function* openEveryBackend(options: WasmOptions): AsyncGenerator<Backend> {
  yield await createWasmBackend(options);
  for (const adapter of (await findAdapters()).found) yield await openAdapter(adapter, options);
}

async function openAdapter(adapter: Adapter, { memoryBytes }: WasmOptions): Promise<Backend> {
  return createWebgpuBackend(adapter, await openDevice(adapter), memoryBytes);
}

/** Opens a hardware GPU, else WASM; then the device name of the backend contains the reason. */
async function openAutomatically(options: WasmOptions, withoutShader?: string): Promise<Backend> {
  if (withoutShader !== undefined)
    return withReason(await createWasmBackend(options), withoutShaderError(withoutShader).message);
  const adapters = await findAdapters();
  const adapter = adapters.found.find(({ software }) => !software);
  let reason = adapters.reason ?? `${adapterNames(adapters)} computes on a processor`;
  if (adapter !== undefined) {
    try {
      return await openAdapter(adapter, options);
    } catch (error) {
      if (!(error instanceof IsologitError)) throw error;
      reason = error.message;
    }
  }
  return withReason(await createWasmBackend(options), reason);
}

const withReason = (wasm: Backend, reason: string): Backend => ({
  ...wasm,
  device: `${wasm.device} (no GPU: ${reason})`,
});

/** The first GPU with `part` in its name, hardware before software. */
export function chooseAdapter(adapters: Adapters, part: string): Adapter {
  const { found, reason, install } = adapters;
  const alike = found.filter(({ name }) => name.toLowerCase().includes(part.toLowerCase()));
  const adapter = alike.find(({ software }) => !software) ?? alike[0];
  if (adapter !== undefined) return adapter;
  const why = reason ?? `no GPU has "${part}" in its name; found: ${adapterNames(adapters)}`;
  const first = install === undefined ? "`isologit doctor` to list the GPUs" : `\`${install}\``;
  const next = `run ${first}, or use \`backend\` wasm`;
  throw new IsologitError("NOT_AVAILABLE", `backend webgpu: ${why}`, {}, { next });
}

const adapterNames = ({ found }: Adapters): string => found.map(({ name }) => name).join(", ");
