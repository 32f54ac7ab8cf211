/** `doctor`: what this machine offers, and whether its arithmetic can be trusted. */
import { readdir, statfs } from "node:fs/promises";
import { availableParallelism, totalmem } from "node:os";
import { openEveryBackend, probeBackends } from "../../kernels/backend/select.ts";
import { checkKernels } from "../../kernels/check.ts";
import { kernels as allKernels } from "../../kernels/index.ts";
import type { Backend } from "../../kernels/kernel.ts";
import { measureSpeed } from "../../kernels/speed.ts";
import type { RunOptions } from "../checkpoint/options.ts";
import { backendFor, memoryOf, threadsOf } from "../inference/machine.ts";

export interface DoctorReport {
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
    /** of WGSL, that its shaders use */
    readonly extensions: readonly string[];
    readonly reason: string | null;
  }[];
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
 * @param options.kernels also runs every kernel's cases against its float64 oracle, on all backends, or on the one that
 *                        `backend` or `device` names
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
  };
}

type Rows = NonNullable<DoctorReport["kernels"]>;

async function kernels(options: RunOptions): Promise<Rows> {
  const { backend = "auto", device } = options;
  if (backend !== "auto" || device !== undefined) return examined(await backendFor(options));
  const rows: Rows[number][] = [];
  for await (const one of openEveryBackend({ threads: threadsOf(options), memoryBytes: memoryOf(options) })) {
    rows.push(...(await examined(one)));
  }
  return rows;
}

async function examined(backend: Backend): Promise<Rows> {
  await using one = backend;
  const rows: Rows[number][] = [];
  for (const kernel of allKernels) {
    const [row] = await checkKernels(one, [kernel]);
    rows.push({ ...row!, speed: await measureSpeed(one, kernel) });
  }
  return rows;
}
