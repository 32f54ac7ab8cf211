/** `doctor`: reports the machine and its backends, and checks the arithmetic of the kernels. */
import { readdir, statfs } from "node:fs/promises";
import { availableParallelism, totalmem } from "node:os";
import { openEveryBackend, probeBackends } from "../../kernels/backend/select.ts";
import { checkKernels } from "../../kernels/check.ts";
import type { Backend } from "../../kernels/kernel.ts";
import { measureSpeed } from "../../kernels/speed.ts";
import type { RunOptions } from "../checkpoint/options.ts";
import { backendFor, memoryOf, threadsOf } from "../inference/machine.ts";
import { type PluginsReport, pluginsReport } from "../plugins/plugin.ts";
import { kernelsOf } from "../plugins/registry.ts";

export interface DoctorReport extends PluginsReport {
  readonly node: string;
  readonly platform: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly diskFreeBytes: number;
  readonly backends: readonly {
    readonly id: string;
    readonly available: boolean;
    readonly device: string | null;
    readonly driver: string | null;
    readonly software: boolean;
    /** WGSL extensions that the shaders use */
    readonly extensions: readonly string[];
    readonly reason: string | null;
  }[];
  /** staged files of unfinished conversions in the current folder */
  readonly staging: readonly string[];
  readonly kernels?: readonly {
    readonly id: string;
    readonly backend: string;
    readonly device: string;
    readonly cases: number;
    readonly worstError: number;
    readonly bound: number;
    readonly ok: boolean;
    readonly speed: { readonly value: number; readonly unit: "GFLOP/s" | "GB/s" };
  }[];
}

/**
 * Reports what this machine can run.
 *
 * @param options `kernels` compares every kernel with its float64 oracle and measures its speed, on every backend, or on
 *   the backend that `backend` or `device` names
 * @returns versions, memory and disk in bytes, one entry for each backend
 * @throws NOT_AVAILABLE: this machine does not have the GPU; USAGE: there is no backend of that name
 * @example
 * const { backends } = await doctor({ kernels: true });
 */
export async function doctor(options: RunOptions & { kernels?: boolean } = {}): Promise<DoctorReport> {
  const disk = await statfs(".");
  return {
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    diskFreeBytes: disk.bavail * disk.bsize,
    backends: await probeBackends(),
    staging: (await readdir(".")).filter((name) => name.endsWith(".partial")).sort(),
    ...(options.kernels === true && { kernels: await kernels(options) }),
    ...pluginsReport(options),
  };
}

type Rows = NonNullable<DoctorReport["kernels"]>;

async function kernels(options: RunOptions): Promise<Rows> {
  const { backend = "auto", device } = options;
  if (backend !== "auto" || device !== undefined)
    return checkEveryKernel(await backendFor({ ...options, plugins: [] }), options);
  const rows: Rows[number][] = [];
  for await (const opened of openEveryBackend({
    threads: threadsOf(options),
    memoryBytes: memoryOf(options),
  })) {
    rows.push(...(await checkEveryKernel(opened, options)));
  }
  return rows;
}

async function checkEveryKernel(backend: Backend, options: RunOptions): Promise<Rows> {
  await using device = backend;
  const rows: Rows[number][] = [];
  for (const kernel of await kernelsOf(options)) {
    if (device.id === "webgpu" && kernel.wgsl === undefined) continue; // no GPU runs it
    const [row] = await checkKernels(device, [kernel]);
    rows.push({ ...row!, speed: await measureSpeed(device, kernel) });
  }
  return rows;
}
