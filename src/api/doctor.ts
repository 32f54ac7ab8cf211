/** `doctor`: reports the machine and its backends, and checks the arithmetic of the kernels. */
import { statfs } from "node:fs/promises";
import { availableParallelism, totalmem } from "node:os";
import { basename, dirname, resolve } from "node:path";
import { openEveryBackend, probeBackends } from "../../kernels/backend/select.ts";
import { checkKernels } from "../../kernels/check.ts";
import type { Backend } from "../../kernels/kernel.ts";
import { measureSpeed } from "../../kernels/speed.ts";
import type { RunOptions } from "../checkpoint/options.ts";
import { backendFor, memoryOf, threadsOf } from "../inference/machine.ts";
import { findLeftovers, type Leftover } from "../io/leftovers.ts";
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
  /** names of the staged files of unfinished conversions */
  readonly staging: readonly string[];
  /** what stopped runs left, and whether a process still writes there */
  readonly leftovers: readonly Leftover[];
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
 *   the backend that `backend` or `device` names; `path` is a destination or a folder in which to look for what stopped runs
 *   left, default: the current folder
 * @returns versions, memory and disk in bytes, one entry for each backend
 * @throws NOT_AVAILABLE: this machine does not have the GPU; USAGE: there is no backend of that name; NOT_FOUND, IO_FAILED
 * @example
 * const { backends } = await doctor({ kernels: true });
 */
export async function doctor(
  options: RunOptions & { readonly kernels?: boolean; readonly path?: string } = {},
): Promise<DoctorReport> {
  const { path } = options;
  const leftovers = await findLeftovers(path);
  const disk = await statfs(path === undefined ? "." : dirname(resolve(path)));
  return {
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    diskFreeBytes: disk.bavail * disk.bsize,
    backends: await probeBackends(),
    staging: leftovers.filter(({ kind }) => kind !== "lock").map(({ path }) => basename(path)),
    leftovers,
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
