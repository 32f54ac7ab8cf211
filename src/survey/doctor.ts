/** `doctor`: what this machine offers, and whether its arithmetic can be trusted. */
import { readdir, statfs } from "node:fs/promises";
import { availableParallelism, totalmem } from "node:os";
import { probeBackends } from "../../kernels/backend/select.ts";
import { checkKernels } from "../../kernels/check.ts";
import type { DoctorReport, RunOptions } from "../api.ts";
import { backendFor } from "../verify/sides.ts";

/** @param options.kernels also runs every kernel's cases against its float64 oracle */
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

async function kernels(options: RunOptions): Promise<NonNullable<DoctorReport["kernels"]>> {
  await using backend = await backendFor(options);
  return await checkKernels(backend);
}
